"""What Mu et al. 2024 quote of accuracy in section I, and how many optima are trained to see what they keep."""

OPTIMA = 50
SAMPLED, MEASURED = "sampled", "measured"
"""Predictors that choose them: one that knows random samples alone, and the bundled one, which also knows what was
chosen before."""

QUOTED = {  # section I: what is done to AlexNet, by the accuracy that it loses in the paper
    "conv2 without 74 %": (0.02, {"conv2": 0.74}, None),
    "conv2 without 89 %": (0.05, {"conv2": 0.89}, None),
    "fc1 in 6.5 %": (0.02, {}, 0.065),
    "fc1 in 0.2 %": (0.07, {}, 0.002),
}


def optima_name(network: str, predictor: str) -> str:
    """How the names begin of the experiments that train them."""
    return f"optimum_{predictor}_{network.partition('_')[0]}_"

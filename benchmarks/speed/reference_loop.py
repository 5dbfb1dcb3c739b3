"""The multi-UE offloading environment as one would write it by hand: plain Python, float64, event by event.

It is the yardstick of mec_jax, for correctness (tests/test_reference_loops.py holds it against recorded
episodes of the authors' implementation) and for speed, and shares no code with the library.

    python -m benchmarks.speed.reference_loop        # frames per second under a random policy
"""

import math
import random
import time
from collections.abc import Sequence
from typing import NamedTuple

FREE, COMPUTING, TRANSMITTING = 0, 1, 2

# ResNet18 on a Jetson Nano: raw input, four cuts (prefix and encoder on the device), all on the device.
RESNET18_BITS = (1204224.0, 100352.0, 50176.0, 25088.0, 25088.0, 0.0)
RESNET18_FRONT_TIME = (0.0, 0.004359, 0.01647, 0.025477, 0.03678, 0.045887)  # s
RESNET18_FRONT_POWER = (0.0, 2.2885, 2.6328, 2.8815, 3.013, 2.1454)  # W

RAW_BITS = 1204224.0  # the observation's unit of bits, whatever the profile
DONE_TIME = 1e-10  # s; a task phase with less time than this to go has ended
MIN_POWER = 1e-10  # W
MIN_FINISHED = 0.8  # floor of the mean number of finished tasks in the reward


class Model(NamedTuple):
    """The numbers of the model, those of both plain loops."""

    bits: Sequence[float] = RESNET18_BITS
    front_time: Sequence[float] = RESNET18_FRONT_TIME
    front_power: Sequence[float] = RESNET18_FRONT_POWER
    time_norm: float | None = None  # the observation's unit of time; None: front time of the last point
    beta: float = 0.47
    frame_time: float = 0.5  # s
    bandwidth: float = 1e6  # Hz
    noise: float = 1e-9  # W
    path_loss: float = 3.0
    max_power: float = 1.0  # W
    mean_tasks: float = 200.0

    @property
    def unit_of_time(self):
        """Of the observation, s."""
        return self.front_time[-1] if self.time_norm is None else self.time_norm


class OffloadingReference:
    """State per UE: tasks_left, mode, time_left (s), bits_left, point, channel, distance (m).

    Point and channel are those of the task in flight. While computing, bits_left already holds what will be
    sent; while transmitting, time_left is 0; a free UE has both at 0 and keeps its last point and channel.
    `events` counts the events of the last frame, its end being one.
    """

    def __init__(self, num_ues=5, num_channels=2, **numbers):
        """`numbers` are fields of `Model`."""
        model = Model(**numbers)
        self.num_ues, self.num_channels = num_ues, num_channels
        self.bits, self.front_time, self.front_power = map(list, (model.bits, model.front_time, model.front_power))
        self.local = len(self.bits) - 1
        self.time_norm, self.beta, self.frame_time = model.unit_of_time, model.beta, model.frame_time
        self.bandwidth, self.noise, self.path_loss = model.bandwidth, model.noise, model.path_loss
        self.max_power, self.mean_tasks = model.max_power, model.mean_tasks

    def reset(self, rng):
        """Training start: random distances, numbers of tasks and first tasks, from a random.Random."""
        ues = range(self.num_ues)
        return self.start(
            [rng.uniform(1.0, 100.0) for _ in ues],
            [max(1, poisson(rng, self.mean_tasks)) for _ in ues],
            [rng.randrange(len(self.bits)) for _ in ues],
            [rng.randrange(self.num_channels) for _ in ues],
        )

    def start(self, distance, tasks, points, channels):
        """Start from given values. Evaluation: 50 m, 200 tasks, last point, channel 0 for every UE."""
        ues = range(self.num_ues)
        self.distance, self.tasks_left, self.total_tasks = list(distance), list(tasks), list(tasks)
        self.gain = [d**-self.path_loss for d in self.distance]
        self.mode, self.time_left, self.bits_left = (
            [FREE for _ in ues],
            [0.0 for _ in ues],
            [0.0 for _ in ues],
        )
        self.point, self.channel = [0 for _ in ues], [0 for _ in ues]
        for n in ues:
            self._start_task(n, points[n], channels[n])
        return self.observe()

    def observe(self):
        obs = []
        for n in range(self.num_ues):
            obs.append(self.tasks_left[n] / self.total_tasks[n])
            obs.append(self.time_left[n] / self.time_norm)
            obs.append(self.bits_left[n] / RAW_BITS)
            obs.append((self.distance[n] - 1.0) / 99.0)
        return obs

    def step(self, points, channels, powers):
        """One frame: (obs, reward, done, energy, finished); energy (J) and finished are sums over UEs."""
        power = [min(max(p, MIN_POWER), self.max_power) for p in powers]
        ues = range(self.num_ues)
        frame_left, energy, finished = self.frame_time, 0.0, 0
        self.events = 0
        while frame_left > 0.0:
            # Time to each UE's next event, and to the first of all.
            rate = [self._rate(n, power) if self.mode[n] == TRANSMITTING else 0.0 for n in ues]
            left = [math.inf for _ in ues]
            for n in ues:
                if self.mode[n] == COMPUTING:
                    left[n] = self.time_left[n]
                elif self.mode[n] == TRANSMITTING:
                    left[n] = self.bits_left[n] / rate[n]
            dt = min(frame_left, min(left))
            frame_left -= dt
            self.events += 1
            # Move all UEs there; who has less than DONE_TIME to go has ended its phase.
            for n in ues:
                ended = left[n] - dt < DONE_TIME
                if self.mode[n] == COMPUTING:
                    energy += self.front_power[self.point[n]] * dt
                    self.time_left[n] -= dt
                    if ended and self.point[n] == self.local:
                        finished += 1
                        self._finish_task(n, points[n], channels[n])
                    elif ended:
                        self.mode[n], self.time_left[n] = TRANSMITTING, 0.0
                elif self.mode[n] == TRANSMITTING:
                    energy += power[n] * dt
                    self.bits_left[n] -= rate[n] * dt
                    if ended:
                        finished += 1
                        self._finish_task(n, points[n], channels[n])
        mean_energy, mean_finished = energy / self.num_ues, finished / self.num_ues
        reward = -(self.frame_time + self.beta * mean_energy) / max(mean_finished, MIN_FINISHED)
        done = all(mode == FREE for mode in self.mode)
        return self.observe(), reward, done, energy, finished

    def _rate(self, n, power):
        """bit/s of a transmitting UE; the others that transmit now on its channel interfere."""
        interference = 0.0
        for i in range(self.num_ues):
            if i != n and self.mode[i] == TRANSMITTING and self.channel[i] == self.channel[n]:
                interference += power[i] * self.gain[i]
        return self.bandwidth / math.log(2.0) * math.log1p(power[n] * self.gain[n] / (self.noise + interference))

    def _start_task(self, n, point, channel):
        self.point[n], self.channel[n] = point, channel
        self.time_left[n], self.bits_left[n] = self.front_time[point], self.bits[point]
        self.mode[n] = COMPUTING if self.front_time[point] > 0.0 else TRANSMITTING

    def _finish_task(self, n, point, channel):
        self.tasks_left[n] -= 1
        if self.tasks_left[n] > 0:
            self._start_task(n, point, channel)
        else:
            self.mode[n], self.time_left[n], self.bits_left[n] = FREE, 0.0, 0.0


def poisson(rng, mean):
    """Arrivals of a unit-rate process in a time of `mean`."""
    count, clock = 0, rng.expovariate(1.0)
    while clock < mean:
        count, clock = count + 1, clock + rng.expovariate(1.0)
    return count


def random_action(rng, env):
    """Points, channels and powers, uniform."""
    ues = range(env.num_ues)
    return (
        [rng.randrange(len(env.bits)) for _ in ues],
        [rng.randrange(env.num_channels) for _ in ues],
        [rng.uniform(0.0, env.max_power) for _ in ues],
    )


def frames_per_second(num_ues=5, seconds=2.0, seed=0, **kwargs):
    """(frames per second, events per frame) under the random policy, resets included."""
    rng, env = random.Random(seed), OffloadingReference(num_ues, **kwargs)
    env.reset(rng)
    frames, events, begin = 0, 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        _, _, done, _, _ = env.step(*random_action(rng, env))
        frames, events = frames + 1, events + env.events
        if done:
            env.reset(rng)
    return frames / (time.perf_counter() - begin), events / frames


if __name__ == "__main__":
    for ues in (3, 5, 10):
        speed, events = frames_per_second(ues)
        print(f"plain Python, N = {ues}: {speed:.0f} frames/s, {events:.1f} events a frame")

"""PyTorch networks cut between a UE and a server, and what drives them: needs `pip install 'mec_jax[torch]'`.

`graph` finds cut points and splits there, `exits` adds early exits, `channels` spreads one layer over workers, `codec`
packs what is sent, `profile` measures, `policy` runs an exported policy as a module. Nothing is imported here, so that
the command line does without PyTorch until it is needed.
"""

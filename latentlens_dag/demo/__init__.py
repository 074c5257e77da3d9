"""The demo world: pictures whose every pixel is known, and a small VLM trained on them.

`world` says what there is, `atlas` and `scenes` draw it, `text` talks about it; `language`,
`vision` and `connector` train the three parts of the model in the paper's order. The shipped
weights come from `python -m latentlens_dag.demo train`, which maintainers run in a checkout: none of
this is installed.
"""

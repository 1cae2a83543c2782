"""From data as people have it to groups of token ids in the order of training.

=============  =====================================================================================================
file           step
=============  =====================================================================================================
``sources``    a file, a folder, a hub id or Python objects -> ``Rows``, which know where each row came from
``formats``    rows of any TRL data set type -> ``Row``: prompt, completions and what is known about them, checked, with
               ``readers`` for each kind, ``implicit`` prompts and messages ``spelled`` out in text
``convert``    one kind of data -> the kind an algorithm learns from, where that loses nothing or is clearly defined
``tokenize``   ``Row`` -> ``Group`` of token ids, within the length limits
``prepare``    the four steps above in one call
``order``      which groups make up each optimiser step, on every rank
``counts``     what happened to the rows on the way, for the user to see
=============  =====================================================================================================

``rows`` is the form between the steps, ``content`` checks cells, ``encode`` knows the tokenizer; ``files``,
``folders``, ``hub`` and ``quiet`` serve ``sources``.
"""

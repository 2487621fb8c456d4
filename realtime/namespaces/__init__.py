"""
Channel names, namespaces and every channel option: what a channel *is*, decided without I/O.

``options`` holds the values, ``names`` takes names apart, ``patterns`` compiles ``channel_regex``, ``table``
answers for a channel in one look-up, ``validation`` says what is wrong with a configuration. Nothing in here
knows Django, a clock or a connection.
"""

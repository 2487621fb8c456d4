"""
Shared polls: each node asks the application for the keys that its clients track, and pushes what has changed.

``polls`` is what the node and its clients call, ``channel`` keeps one channel's keys and judges answers, ``worker`` decides when
the application is asked, ``feeds`` brings direct publishes from other nodes, ``notices`` the application's hints, and
``outbox`` writes once per connection and tick.
"""

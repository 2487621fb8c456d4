"""Redis (and what speaks its protocol) as the engine; knows no Django but for ``channel_layer``."""

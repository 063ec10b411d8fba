"""The state machine: what is observed -> what is done and told. Pure: no clock, no network, no environment."""

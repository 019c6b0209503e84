"""The training method: phases and learning rates, schedules, the loss, the strategy `auto`, reuse of features."""

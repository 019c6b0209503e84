"""How it is trained: phases and learning rates, schedules, loss, strategy by the data, reuse of features."""

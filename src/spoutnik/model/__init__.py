"""The models, as pure torch modules: no device, no rank and no training inside. They are the truth that every kernel is proved against."""

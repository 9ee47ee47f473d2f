"""What the report says about weight decay, biases and the end of the module."""

from convexnn_bench.modules import Reading, TrainingLoss


def decay_words(lam: float, training: TrainingLoss, in_units_of_torch: float) -> str:
    """Return how weight decay was understood, and the objective in the units of torch."""
    what = "the sum of the losses" if training.reduction == "sum" else "torch's mean of the losses"
    what = training.words if training.is_torch else what
    words = f"Weight decay: lam/2 ||w||^2 on {what}, as SGD and Adam add it (AdamW does not), lam = {lam:.6g}."
    plain = training.reduction == "sum" and training.scale == 1.0
    return words if plain else f"{words} In those units the objective is {in_units_of_torch:.9g}."


def head_words(reading: Reading) -> list[str]:
    """Return what was assumed about a function at the end of the module."""
    return [] if reading.head is None else [f"The {reading.head} at the end of the module belongs to the loss."]


def bias_words(reading: Reading, output_bias: str) -> list[str]:
    """Return what was assumed about the biases of both layers."""
    words = []
    if reading.first_bias:
        words.append("Biases of the first layer are weights of a constant feature, with weight decay.")
    if reading.output_bias is not None:
        decay = "with" if output_bias == "penalised" else "without"
        words.append(f"The bias of the last layer is {decay} weight decay, and minimised over in the bound.")
    return words

"""What the report says about weight decay, biases and the end of the module."""

from convexnn_bench.modules import Decay, Reading, TrainingLoss


def decay_words(decay: Decay, training: TrainingLoss, in_units_of_torch: float) -> str:
    """Return how weight decay was understood, and the objective in the units of torch."""
    what = "the sum of the losses" if training.reduction == "sum" else "torch's mean of the losses"
    what = training.words if training.is_torch else what
    how = f"{what}, as SGD and Adam add it (AdamW does not)"
    if decay.first == decay.second:
        words = f"Weight decay: lam/2 ||w||^2 on {how}, lam = {decay.first:.6g}."
    else:
        words = (
            f"Weight decay: lam_1/2 ||w||^2 for the first and lam_2/2 ||w||^2 for the second layer on {how}, lam_1 = "
            f"{decay.first:.6g}, lam_2 = {decay.second:.6g}."
        )
    words = f"{words} {decay.source}." if decay.source else words
    plain = training.reduction == "sum" and training.scale == 1.0
    return words if plain else f"{words} In those units the objective is {in_units_of_torch:.9g}."


def penalty_words(decay: Decay, beta: float) -> str:
    """Return the penalty of the objective in words, in units of F.

    beta: that of the problem.
    """
    if decay.first == decay.second:
        return f"beta/2 times the squared weights, beta = {beta:.6g}"
    return (
        f"beta_1/2 times the squared weights of the first and beta_2/2 times those of the second layer, beta_1 = "
        f"{decay.first:.6g}, beta_2 = {decay.second:.6g}, which is beta = (beta_1 beta_2)^(1/2) = {beta:.6g} on both "
        "after rescaling the layers"
    )


def head_words(reading: Reading) -> list[str]:
    """Return what was assumed about a function at the end of the module."""
    return [] if reading.head is None else [f"The {reading.head} at the end of the module belongs to the loss."]


def file_head_words(layers: list[str]) -> str:
    """Return what a report on the last layers in a file holds for."""
    names = " and ".join(map(repr, layers))
    return (
        f"This is about the head alone, the layers {names} of MODEL, with the samples in DATA "
        "as its frozen features. With other features the objective may be lower: nothing is said about the optimum of "
        "the whole network."
    )


def bias_words(reading: Reading, decay: Decay) -> list[str]:
    """Return what was assumed about the biases of both layers."""
    words = []
    if reading.first_bias and decay.first_bias == 0:
        words.append(
            "Biases of the first layer are without weight decay. A hidden neuron can then be a constant at no cost, so "
            "that the bound is on the network with a free output bias."
        )
    elif reading.first_bias:
        of_its_own = "" if decay.first_bias == decay.first else f" of their own, lam = {decay.first_bias:.6g}"
        words.append(f"Biases of the first layer are weights of a constant feature, with weight decay{of_its_own}.")
    if reading.output_bias is not None:
        how = "with" if decay.second_bias else "without"
        own = decay.second_bias not in (0, decay.second)
        of_its_own = f" of its own, lam = {decay.second_bias:.6g}" if own else ""
        words.append(f"The bias of the last layer is {how} weight decay{of_its_own}, and minimised over in the bound.")
    return words

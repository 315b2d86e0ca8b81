"""Checks for the exercises: each says whether an answer is right, or what is wrong with it.

    from course.exercises import check_parameters
    check_parameters(conv2=..., fc1=...)  # replace the dots with your answers

Each check prints one line and stops nothing, so a notebook with open exercises still runs.
"""

from course.exercises import lesson5, lesson6
from course.exercises.lesson5 import *  # noqa: F403
from course.exercises.lesson6 import *  # noqa: F403

__all__ = [*lesson5.__all__, *lesson6.__all__]

# The exercises whose answers are numbers: the website checks them, too.
NUMBERS = {
    "check_output_sizes": lesson5.OUTPUT_SIZES,
    "check_parameters": lesson5.PARAMETERS,
    "check_convolution": lesson5.CONVOLUTION,
    "check_gradient": lesson6.GRADIENTS,
    "check_receptive_field": lesson6.RECEPTIVE_FIELDS,
}

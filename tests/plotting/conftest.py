"""Axes for a test, closed after it."""

import matplotlib as mpl
import pytest

mpl.use("Agg")


@pytest.fixture
def figure_axes():
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    yield ax
    figure.canvas.draw()  # labels and layout are made here
    plt.close("all")

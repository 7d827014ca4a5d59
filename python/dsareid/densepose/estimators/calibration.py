"""The linear maps that stretch the charts: U and V become 0.5 + gain * (value - 0.5) + shift.

Fitted by studies/estimator on photographs with DensePose's maps; left and right parts were fitted together.
"""

import numpy as np

from dsareid.densepose.estimators.body_parts import PARTS

# By DensePose's I: gain and shift of U, gain and shift of V.
_LINES = {
    1: (1.00, 0.00, 1.00, 0.00),
    2: (1.05, 0.00, 1.04, 0.00),
    3: (0.90, -0.06, 0.94, -0.02),
    4: (0.90, 0.06, 0.94, -0.02),
    5: (0.85, 0.02, 0.98, 0.01),
    6: (0.85, -0.02, 0.98, 0.01),
    7: (1.00, 0.00, 1.00, 0.00),
    8: (1.00, 0.00, 1.00, 0.00),
    9: (0.89, -0.07, 0.98, 0.05),
    10: (0.89, -0.07, 0.98, 0.05),
    11: (1.10, 0.03, 1.04, 0.14),
    12: (1.10, 0.03, 1.04, 0.14),
    13: (1.03, 0.07, 0.99, 0.02),
    14: (1.03, 0.07, 0.99, 0.02),
    15: (1.01, 0.02, 0.96, 0.02),
    16: (1.01, 0.02, 0.96, 0.02),
    17: (0.95, 0.00, 0.95, 0.05),
    18: (0.95, 0.00, 0.95, 0.05),
    19: (0.90, 0.07, 0.95, -0.09),
    20: (0.90, 0.07, 0.95, -0.09),
    21: (1.03, -0.04, 0.98, 0.08),
    22: (1.03, -0.04, 0.98, 0.08),
    23: (1.02, 0.00, 1.02, 0.03),
    24: (1.02, 0.00, 1.02, 0.03),
}
GAIN = np.array([[_LINES[part][2 * c] for part in PARTS] for c in (0, 1)], np.float32)
"""[2, 24], of U and V of BodyPix's parts."""
SHIFT = np.array([[_LINES[part][2 * c + 1] for part in PARTS] for c in (0, 1)], np.float32)
"""[2, 24]."""

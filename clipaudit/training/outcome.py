"""What eq. 7 makes of a data set: counts for an epoch's row, and the relabelled data set."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from clipaudit.training.config import TrainConfig
from clipaudit.training.data import TrainingSet
from clipaudit.training.methods.base import Look
from clipaudit.training.rule import ABSORBED, ACTIONS, DROPPED, RELABELLED, Fixed, fix

# Beside the actions of eq. 7: samples that take no part in training.
LABEL_ACTIONS = (*ACTIONS, "held out", "unreadable")


def apply_rule(data: TrainingSet, look: Look, config: TrainConfig) -> Fixed:
    """Eq. 7 on all rows of an index."""
    return fix(
        look.p_m,
        look.y_m,
        data.samples.labels,
        data.clean,
        config.theta_r,
        config.theta_r_prime,
        relabel_selected=config.relabel_selected,
    )


def counts(data: TrainingSet, look: Look, config: TrainConfig) -> dict[str, int]:
    """How many samples were absorbed, relabelled and dropped, and, where the truth is known, how many rightly (Fig. 3).

    An absorbed or relabelled sample is right where its label is now the true one, a dropped one where its given label
    is not.
    """
    fixed, result = apply_rule(data, look, config), {}
    for name, action in (("absorbed", ABSORBED), ("relabelled", RELABELLED), ("dropped", DROPPED)):
        chosen = data.usable & (fixed.actions == action)
        result[name] = int(chosen.sum())
        if data.truth is not None:
            right = fixed.labels == data.truth
            result[f"{name}_right"] = int((chosen & (~right if action == DROPPED else right)).sum())
    return result


def labels_table(data: TrainingSet, look: Look, config: TrainConfig) -> pa.Table:
    """The relabelled data set: id, given label, final label, action and p_m of every row of the index.

    A dropped sample has no final label, neither has an unreadable one; p_m is null where there was nothing to look at.
    """
    fixed = apply_rule(data, look, config)
    actions = fixed.actions.astype(np.int32)
    actions[data.held_out] = LABEL_ACTIONS.index("held out")
    actions[~data.readable] = LABEL_ACTIONS.index("unreadable")
    final = np.where(data.held_out, data.samples.labels, fixed.labels).astype(np.int32)
    unknown = (actions == DROPPED) | ~data.readable
    names = pa.array(data.class_names)
    return pa.table(
        {
            "id": pa.array(data.samples.ids, pa.string()),
            "label": pa.DictionaryArray.from_arrays(pa.array(data.samples.labels.astype(np.int32)), names),
            "final_label": pa.DictionaryArray.from_arrays(pa.array(final, mask=unknown), names),
            "action": pa.DictionaryArray.from_arrays(pa.array(actions), pa.array(LABEL_ACTIONS)),
            "p_m": pa.array(look.p_m, mask=np.isnan(look.p_m)),
        }
    )

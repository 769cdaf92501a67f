"""Options that are no configuration: which images and columns calls read, with which model, and how they compute."""

from __future__ import annotations

from clipaudit.options import Option
from clipaudit.options.kinds import SEED, Choice, Percentage, Range, Switch, Text

DEVICE = Option(
    "auto",
    Text("the name of a device"),
    "Device to compute on: auto (CUDA if present, else MPS, else CPU), cpu, cuda, cuda:1 or mps",
    "Model",
    name="device",
)
# Short names of models on the hub. docs/models.md says which to choose.
MODELS = {
    "vit-b-32": "openai/clip-vit-base-patch32",
    "vit-l-14-336": "openai/clip-vit-large-patch14-336",
    "siglip2-base": "google/siglip2-base-patch16-224",
}
MODEL = Option(
    MODELS["vit-b-32"],
    Text("the name of a model"),
    "Dual encoder of images and texts: folder or hub id of a model of transformers, or a short name"
    f" ({', '.join(MODELS)})",
    "Model",
    name="model",
)
REVISION = Option(
    None, Text("the name of a revision"), "Branch, tag or commit on the hub", "Model", unset="main", name="revision"
)
PRECISION = Option(
    "auto",
    Choice(
        {"auto": "half precision where the device computes faster in it", "float32": "", "bfloat16": "", "float16": ""}
    ),
    "Arithmetic",
    "Model",
    name="precision",
)
BATCH_SIZE = Option(
    None,
    Range(1, 4096, whole=True),
    "Number of images in a step",
    "Model",
    unset="fitted to the device",
    note="it shrinks by itself when memory runs out",
    name="batch_size",
)
EXACT = Option(
    False,
    Switch(),
    "Let the model's own image processor prepare each image",
    "Model",
    note="this is slower; otherwise large JPEG images are decoded at a reduced size, which keeps the cosine to the"
    " exact embedding above 0.999",
    name="exact",
)
# The fields of `clipaudit.EncoderOptions`.
ENCODER = (MODEL, REVISION, DEVICE, PRECISION, BATCH_SIZE, EXACT)
PATH_COLUMN = Option(
    None,
    Text("a column"),
    "Column of a manifest with the paths, or of a table of vectors with the ids",
    "Source",
    unset="recognised",
    name="path_column",
)
LABEL_COLUMN = Option(
    None, Text("a column"), "Column with the labels", "Source", unset="recognised", name="label_column"
)
IMAGE_COLUMN = Option(
    None,
    Text("a column"),
    "Column of a Parquet file with the image bytes",
    "Source",
    unset="recognised",
    name="image_column",
)
CROPS = Option(
    False,
    Switch(),
    "Take each labelled box of a labelling tool's file for a sample, in place of each image",
    "Source",
    name="crops",
)
VECTOR_COLUMN = Option(
    None,
    Text("a column"),
    "Column of a Parquet file with the vectors, for --embeddings",
    "Source",
    unset="recognised",
    name="vector_column",
)
# Fields of `clipaudit.SourceOptions`.
COLUMNS = (PATH_COLUMN, LABEL_COLUMN, IMAGE_COLUMN, VECTOR_COLUMN, CROPS)
# Beside `clipaudit.EncoderOptions`.
ZERO_SHOT = Option(
    True,
    Switch(),
    "Load the text side of the model that made the vectors, for --embeddings",
    "Model",
    note="without it (vision-only vectors, such as DINOv2's), only the induced estimate will speak",
    name="zero_shot",
)
EXPORT_FORMAT = Option(
    None,
    Choice(
        {
            "label-studio": "tasks with predictions, the most doubtful first; .json",
            "cvat": "tags of images; .xml",
            "coco": ".json",
            "fiftyone": "labels.json",
            "huggingface": "a folder for `datasets`, with the images",
        }
    ),
    "Tool that exports are for, where their ending does not say it",
    "Options",
    unset="by the ending",
    name="export_format",
)
TRAIN_PRECISION = Option(
    "auto",
    Choice({"auto": "mixed on a GPU that has it", "bfloat16": "mixed", "float32": ""}),
    "Arithmetic",
    "Model",
    name="precision",
)
PIXELS = Option(
    "auto",
    Choice({"auto": "on the device if they fit", "device": "", "disk": ""}),
    "Where decoded images are kept",
    "Work",
    name="pixels",
)
QUALITY = Option(
    False,
    Switch(),
    "Measure the quality of each image, too: dark, light, blurry, low information, odd size, odd aspect ratio",
    "Work",
    note="it needs clipaudit[quality]",
    name="quality",
)
ENGINE = Option(
    "local",
    Choice({"local": "in this process", "ray": "in workers of a Ray cluster"}),
    "Where the model runs",
    "Work",
    note="ray needs clipaudit[ray]",
    name="engine",
)
ADDRESS = Option(
    None,
    Text("the address of a cluster"),
    "Ray cluster, for --engine ray: auto for the one that this machine belongs to, or host:port",
    "Work",
    unset="auto, else this machine alone",
    name="address",
)
VERIFY = Option(
    False,
    Switch(),
    "Scan the source again, and read every byte of the cache",
    "Work",
    note="otherwise names, sizes and times are trusted",
    name="verify",
)
WORKERS = Option(
    None,
    Range(1, 256, whole=True),
    "Number of threads that decode and read images",
    "Work",
    unset="one a core",
    name="workers",
)
DATA_PARALLEL = Option(
    1,
    Range(1, 64, whole=True, unit="processes"),
    "Number of GPUs that fit the logistic regression together, a process each; on the CPU, of processes",
    "Model",
    note="no probability changes by more than about 1e-4",
    name="data_parallel",
)
COPIES = Option(
    False,
    Switch(),
    "A mark counts for the copies of its image, too, unless they have marks of their own",
    "Options",
    name="copies",
)
ON_CONFLICT = Option(
    "refuse",
    Choice({"refuse": "", "first": "the first file's mark holds", "last": "", "unsure": "the sample stays unsettled"}),
    "What to do where files of marks disagree",
    "Options",
    name="on_conflict",
)
BUDGET = Option(
    100,
    Range(1, 1_000_000, whole=True, unit="samples"),
    "Number of samples to draw",
    "Options",
    name="budget",
)
REVIEW_SEED = Option(0, SEED, "Random seed of the draw", "Options", name="seed")
WITHIN = Option(
    0.02,
    Range(0.0001, 0.5),
    "Half width of the 95 % interval at which the review can stop, as a share of the labels",
    "Options",
    name="within",
)
FAIL_OVER = Option(
    None,
    Percentage(0.0, 1.0),
    "Exit with 1 where a larger share of the labels that could be read is in doubt",
    "Output",
    unset="never",
    note="for continuous integration",
    name="fail_over",
)

"""BodyPix's weights: finding, fetching and verifying them.

They are read from the folder that is given, else from that of the environment variable DSAREID_BODYPIX, else
from the user's cache, into which they are fetched once.
"""

import hashlib
import json
import os
import tempfile
from pathlib import Path

import torch

from dsareid.densepose.estimators.tfjs import GraphFile, GraphModel, read_graph, read_weights
from dsareid.ground.errors import DSAError
from dsareid.ground.files import make_folder, user_cache

ORIGIN = "https://storage.googleapis.com/tfjs-models/savedmodel/bodypix/mobilenet/quant2/075/"
NAME = "BodyPix 2.0, MobileNetV1 0.75, 16 bits a weight"
LICENCE = "published by Google with Apache-2.0 code (tensorflow/tfjs-models)"
VARIABLE = "DSAREID_BODYPIX"
GRAPH, SHARD = "model-stride16.json", "group1-shard1of1.bin"
SHARD_SHA256 = "e215c9546b9db0e1e06c23c759ed48ccaf2aad68c656d0130b5757bc0479ac77"
GRAPH_DIGEST = "47038090678332bf4df841ce5c6d00b03fa4c3f84a4c32b4845004e592d2553b"
"""The graph_digest of GRAPH, no checksum of the file: copies of it differ in the order of entries."""


def load_network(folder: str | os.PathLike | None, outputs: tuple[str, ...]) -> GraphModel:
    """The network with its weights.

    Args:
        folder: that holds GRAPH and SHARD; None: as the module says.
        outputs: names of heads.

    Raises:
        DSAError: a file that is missing, cut short or of another network, or cannot be fetched.
    """
    place = _find(folder)
    graph = _read_checked(place / GRAPH)
    if (found := _sha256(place / SHARD)) != SHARD_SHA256:
        raise DSAError(
            f"{place / SHARD}: not the weights of {NAME}: its SHA-256 is {found}, not {SHARD_SHA256}; "
            f"{_how_to_get()}"
        )
    nodes = {node.name: node for node in graph.modelTopology.node}
    with torch.inference_mode():
        return GraphModel(nodes, read_weights(graph, place), outputs).eval()


def _read_checked(path: Path) -> GraphFile:
    """The graph, if it is BodyPix's."""
    try:
        graph = read_graph(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DSAError(f"{path}: no such file; {_how_to_get()}") from error
    except DSAError as error:
        raise DSAError(f"{error}; {_how_to_get()}") from error
    if graph_digest(graph) != GRAPH_DIGEST:
        raise DSAError(f"{path}: the graph of another network than {NAME}; {_how_to_get()}")
    return graph


def graph_digest(graph: GraphFile) -> str:
    """Hex SHA-256 of a graph's operations and weights, whatever the order of entries in the file."""
    nodes = [
        [node.name, node.op, node.input, node.numbers("strides"), node.numbers("dilations")]
        for node in sorted(graph.modelTopology.node, key=lambda node: node.name)
    ]
    weights = [group.model_dump() for group in graph.weightsManifest]
    text = json.dumps([nodes, weights], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def weights_at_hand() -> bool:
    """Whether the network can be loaded without fetching anything."""
    place = Path(os.environ.get(VARIABLE) or _cache())
    return _holds_network(place)


def _holds_network(place: Path) -> bool:
    return all((place / name).exists() for name in (GRAPH, SHARD))


def _cache() -> Path:
    return user_cache() / "bodypix-mobilenet-quant2-075"


def _find(folder: str | os.PathLike | None) -> Path:
    given = folder or os.environ.get(VARIABLE)
    if given:
        return Path(given)
    place = _cache()
    if not _holds_network(place):
        _fetch(make_folder(place))
    return place


def _fetch(place: Path) -> None:
    """Fetch both files from their origin, with a progress bar; they appear only when they are whole."""
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=place) as name:
        fetched = Path(name)
        for file, digest in ((GRAPH, None), (SHARD, SHARD_SHA256)):
            try:
                torch.hub.download_url_to_file(f"{ORIGIN}{file}", str(fetched / file), digest)
            except (OSError, RuntimeError) as error:
                raise DSAError(f"cannot fetch {ORIGIN}{file} ({error}); {_how_to_get()}") from error
        _read_checked(fetched / GRAPH)
        for file in (SHARD, GRAPH):
            os.replace(fetched / file, place / file)


def _how_to_get() -> str:
    return (
        f"put {GRAPH} and {SHARD} of {ORIGIN} into a folder and set the environment variable {VARIABLE} to it"
    )


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DSAError(f"{path}: cannot be read: {error.strerror}; {_how_to_get()}") from error

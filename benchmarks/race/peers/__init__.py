"""The peers by name. A peer's module imports its packages inside functions: each lives in another environment."""

from benchmarks.race.interface import Peer
from benchmarks.race.peers.forerun import Forerun
from benchmarks.race.peers.llama_cpp import LlamaCpp
from benchmarks.race.peers.onnxruntime_genai import OnnxRuntimeGenai
from benchmarks.race.peers.openvino_genai import OpenvinoGenai
from benchmarks.race.peers.transformers import Transformers

_CLASSES: tuple[type[Peer], ...] = (Forerun, LlamaCpp, OnnxRuntimeGenai, OpenvinoGenai, Transformers)
PEERS: dict[str, type[Peer]] = {peer.name: peer for peer in _CLASSES}

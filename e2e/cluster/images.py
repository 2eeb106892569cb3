"""Our images, built from our own Dockerfiles without a container registry."""
from dataclasses import dataclass
from pathlib import Path
@dataclass(frozen=True)
class Built:
    archive: Path
    identity: str
def build(image, dockerfile, context): ...
def file_name(image): return image.replace("/","_")

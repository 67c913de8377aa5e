"""How the Hub is to be asked: with which token, into which cache, or not at all."""

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants


@dataclass(frozen=True)
class Access:
    """What ``Bank.from_pretrained`` was told beside the name; None leaves it to huggingface_hub's own settings."""

    cache_dir: Path | None = None
    token: str | bool | None = None
    local_files_only: bool = False

    @property
    def offline(self) -> str | None:
        """Why the network must not be used, in words; None if it may be."""
        if self.local_files_only:
            return "only local files were asked for"
        return "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else None

    @property
    def hub_cache(self) -> Path:
        """Folder of huggingface_hub's own cache, for whole files."""
        return self.cache_dir or Path(constants.HF_HUB_CACHE)

    @property
    def bank_cache(self) -> Path:
        """Folder of the banks that were extracted: among the Hub's assets, or inside a cache folder of one's own."""
        return (self.cache_dir or Path(constants.HF_ASSETS_CACHE)) / "masterkey"

"""Tars with an index beside each, as `ossicle data shard` writes them; given as their folder."""

from pathlib import Path

from ossicle.data.columns import Columns, ReadOptions
from ossicle.data.layout import DataLayout, Folder, LayoutContents
from ossicle.data.modalities import SOUND
from ossicle.data.shards import INDEX_SUFFIX, TarReader, index_of, read_index
from ossicle.errors import DataRefused

HEAD = ("set", "shard", "shards", "group_name", "fold_name", "failures")


class ShardLayout(DataLayout):
    modality = SOUND

    def detect(self, root: Folder, options: ReadOptions) -> list[Path] | None:
        if not root.path.is_dir():
            return None
        tars = {path for path in root.path.glob("*.tar") if path.is_file()}
        tars |= {
            path.with_name(path.name.removesuffix(INDEX_SUFFIX) + ".tar") for path in root.path.glob(f"*{INDEX_SUFFIX}")
        }
        return sorted(tars) or None

    def read(self, root: Folder, found: list[Path], options: ReadOptions) -> LayoutContents:
        for option, name in options.named.items():
            raise DataRefused(
                f"--{option} {name} names a column, but {root.path} holds tars: name it when they are packed."
            )
        reader, heads = TarReader(), []
        for tar in found:
            index = read_index(tar)
            try:
                reader.add(tar, index)
                heads.append({name: index[name] for name in HEAD})
            except (KeyError, IndexError, TypeError, ValueError) as error:
                raise DataRefused(f"{index_of(tar)} is not what `ossicle data shard` writes ({error!r}).") from error
        first = heads[0]
        if any(head["set"] != first["set"] for head in heads):
            raise DataRefused(
                f"{root.path} holds tars of several data sets, or cut otherwise: give each its own folder."
            )
        if lacking := sorted(set(range(first["shards"])) - {head["shard"] for head in heads}):
            raise DataRefused(
                f"{root.path} holds {len(heads)} of {first['shards']} tars: number {lacking[0]} is missing; copy it "
                "there, or pack the data again with `ossicle data shard`."
            )
        left_out = sum(len(head["failures"]) for head in heads)
        return LayoutContents(
            items=reader.items(),
            description=f"{len(found)} tars with their indexes",
            columns=Columns(source=None, label="labels", group=first["group_name"], fold=first["fold_name"]),
            remarks=(f"{left_out} recordings were left out when the tars were packed",) if left_out else (),
            whole=True,
        )


LAYOUT = ShardLayout()

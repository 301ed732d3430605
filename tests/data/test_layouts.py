"""What lies on a disk is recognized as what it is, and what cannot be learned from is refused in one sentence."""

import os
import shutil
import sys
from collections import Counter
from dataclasses import replace
from itertools import combinations

import pytest

from ossicle.data import layouts, read_dataset, split_dataset
from ossicle.data.names import SPLIT_NAMES, split_of
from ossicle.errors import DataRefused

CLASSES = ("cat/1.wav", "cat/2.wav", "dog/1.wav", "dog/2.wav")


def rows(*lines: str, sounds: tuple[str, ...] = ("a.wav", "b.wav", "c.wav", "d.wav")) -> dict[str, str]:
    return {"meta.csv": "\n".join(lines) + "\n", **dict.fromkeys(sounds, "")}


TWO_AND_TWO = ("a.wav,dog", "b.wav,dog", "c.wav,cat", "d.wav,cat")


# ---------------------------------------------------------------- folder per class


def test_folders_are_classes_at_any_depth_and_in_any_case_of_suffix(tree):
    dataset = read_dataset(tree(["dog/1.WAV", "dog/walk/may/2.Flac", "cat/ü b.mp3", "cat/-1.ogg", "cat/notes.txt"]))
    assert dataset.labels == ("cat", "dog")
    assert sorted((dataset.relative(item), *item.labels) for item in dataset.items) == [
        ("cat/-1.ogg", "cat"),
        ("cat/ü b.mp3", "cat"),
        ("dog/1.WAV", "dog"),
        ("dog/walk/may/2.Flac", "dog"),
    ]
    assert dataset.task == "single-label"
    assert "folder per class" in dataset.layout
    assert all(item.file.is_absolute() for item in dataset.items)


def test_train_val_and_test_above_the_classes_are_the_official_split(tree):
    parts = {"train": "train", "Val": "validation", "test": "test"}
    dataset = read_dataset(tree([f"{part}/{name}" for part in parts for name in CLASSES]))
    assert {dataset.relative(item).split("/")[0]: item.split for item in dataset.items} == parts
    assert dataset.labels == ("cat", "dog")


def test_a_class_may_be_called_like_a_split(tree):
    dataset = read_dataset(tree(["train/1.wav", "train/2.wav", "tram/1.wav", "tram/2.wav"]))
    assert dataset.labels == ("train", "tram")
    assert {item.split for item in dataset.items} == {None}
    assert "train/ is taken for a class" in dataset.layout


def test_recordings_beside_the_folders_of_a_split_are_left_out_and_counted(tree):
    dataset = read_dataset(
        tree([*(f"{part}/{name}" for part in ("train", "test") for name in CLASSES), "noise/1.wav", "noise/2.wav"])
    )
    assert dataset.labels == ("cat", "dog") and len(dataset) == 8
    assert "recordings beside test/, train/ are left out (2)" in dataset.layout


NAMES_OF_SPLITS = [(split, name) for split, names in SPLIT_NAMES.items() for name in names]


@pytest.mark.parametrize(
    "names", list(combinations(NAMES_OF_SPLITS, 2)), ids=lambda names: "-".join(n for _, n in names)
)
def test_two_folders_of_a_split_are_never_classes_whatever_they_are_called(tree, names):
    dataset = read_dataset(tree([f"{name.upper()}/{clip}" for _, name in names for clip in CLASSES]))
    assert dataset.labels == ("cat", "dog")
    assert {dataset.relative(item).split("/")[0].lower(): item.split for item in dataset.items} == {
        name: split for split, name in names
    }


@pytest.mark.parametrize("name", ["test", "val", "training"])
def test_a_folder_of_one_split_alone_is_that_split(tree, name):
    dataset = read_dataset(tree([f"{name}/{clip}" for clip in CLASSES]))
    assert dataset.labels == ("cat", "dog") and {item.split for item in dataset.items} == {split_of(name)}


def test_recordings_directly_in_the_folders_of_a_split_have_no_labels(tree):
    assert "4 recordings but no labels" in refusal(
        tree([f"{part}/{number}.wav" for part in ("dev", "eval") for number in "12"])
    )


def test_a_folder_of_a_split_that_holds_its_neighbors_classes_is_no_class(tree):
    sentence = refusal(tree([*CLASSES, *(f"val/{name}" for name in CLASSES)]))
    assert "is a class or a part of the data" in sentence and "(cat)" in sentence


def test_data_that_train_on_their_validation_part_are_split_so(tree):
    clips = [f"{label}/{number}.wav" for label in ("cat", "dog") for number in range(9)]
    split = split_dataset(
        read_dataset(tree([f"{part}/{clip}" for part in ("development", "evaluation") for clip in clips]))
    )
    assert (len(split.test), len(split.train) + len(split.validation)) == (18, 18)
    assert "the `val` split trains, as there is no `train` split" in split.protocol


@pytest.mark.parametrize("name", ["fold{}", "Fold_{:02}", "fold-{}", "fold {}"])
def test_folders_of_folds_are_folds(tree, name):
    dataset = read_dataset(tree([f"{name.format(fold)}/{clip}" for fold in (1, 2, 10) for clip in CLASSES]))
    assert dataset.labels == ("cat", "dog") and dataset.folds == ("1", "2", "10")
    assert "3 folds from `fold*/`" in dataset.layout
    assert split_dataset(dataset, fold="10").protocol.startswith("fold 10 of 3 (official `fold*/` folders) is the test")


def test_folds_without_classes_are_no_classes(tree):
    names = [f"audio/fold{fold}/{number}.wav" for fold in (1, 2) for number in "12"]
    assert "4 recordings but no labels" in refusal(tree(names) / "audio")
    sentence = refusal(tree(names))
    assert "its folders are parts of the data (fold1/) and no classes" in sentence and "give the path" not in sentence


@pytest.mark.parametrize("place", ["{split}/{fold}/{clip}", "{fold}/{split}/{clip}"])
def test_folders_of_splits_and_folds_may_lie_in_each_other(tree, place):
    parts = [{"split": split, "fold": fold} for split in ("train", "test") for fold in ("fold1", "fold2")]
    dataset = read_dataset(tree([place.format(**part, clip=clip) for part in parts for clip in CLASSES]))
    assert dataset.labels == ("cat", "dog") and dataset.folds == ("1", "2")
    assert Counter(item.split for item in dataset.items) == {"train": 8, "test": 8}


def test_a_split_below_the_classes_is_the_official_one(tree):
    dataset = read_dataset(tree([f"{c}/{part}/{n}.wav" for c in "ab" for part in ("train", "test") for n in "12"]))
    assert Counter(item.split for item in dataset.items) == {"train": 4, "test": 4}
    assert "parts from test/, train/ below the classes" in dataset.layout


def test_a_split_below_some_of_the_classes_is_named_and_not_used(tree):
    dataset = read_dataset(tree(["a/train/1.wav", "a/test/1.wav", "b/1.wav", "b/2.wav"]))
    assert {item.split for item in dataset.items} == {None}
    assert "test/, train/ below the classes are no parts, as not all recordings lie in such folders" in dataset.layout


def test_labels_that_may_be_meant_as_one_are_named(tree):
    layout = read_dataset(tree([f"{label}/{number}.wav" for label in ("Dog", "dog", "cat") for number in "12"])).layout
    assert "labels that differ in case or encoding alone: 'Dog', 'dog'" in layout


def test_one_fold_can_be_measured_and_not_trained_on(tree):
    lines = (f"{row},1" for row in TWO_AND_TWO)
    dataset = read_dataset(tree(rows("file,label,fold", *lines)))
    assert len(dataset) == 4
    with pytest.raises(DataRefused, match=r"holds one fold only \(1\)"):
        split_dataset(dataset)


def test_columns_without_a_name_are_no_matter(tree):
    assert len(read_dataset(tree(rows("file,label,,", *(f"{row},," for row in TWO_AND_TWO))))) == 4


def test_folders_without_recordings_beside_the_splits_do_not_hide_them(tree):
    files = [f"{part}/{name}" for part in ("train", "test") for name in CLASSES]
    dataset = read_dataset(tree([*files, "docs/readme.txt", "loose.wav"]))
    assert dataset.labels == ("cat", "dog")
    assert {item.split for item in dataset.items} == {"train", "test"}
    assert "lie in no class folder and are left out (1)" in dataset.layout


def test_what_is_left_out_is_said(tree):
    layout = read_dataset(
        tree([*CLASSES, "loose.wav", "figures/plot.png", "__MACOSX/dog/1.wav", ".git/x/1.wav"])
    ).layout
    assert "lie in no class folder and are left out (1)" in layout
    assert "left out: figures" in layout
    assert "__MACOSX" not in layout and ".git" not in layout


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize("name", ["meta.csv", "metadata.csv", "META.CSV"])
@pytest.mark.parametrize("file_column", ["file", "filename", "file_name", "path", "audio", "File"])
@pytest.mark.parametrize("label_column", ["label", "labels", "category", "class"])
def test_a_folder_with_a_table_is_read_whatever_its_columns_are_called(tree, name, file_column, label_column):
    table = "\n".join([f"{file_column},{label_column}", *TWO_AND_TWO])
    root = tree({name: table, **dict.fromkeys(["a.wav", "b.wav", "c.wav", "d.wav"], "")})
    dataset = read_dataset(root)
    assert dataset.labels == ("cat", "dog")
    assert [item.labels for item in dataset.items] == [("dog",), ("dog",), ("cat",), ("cat",)]


def test_the_sound_may_lie_in_the_audio_subfolder(tree):
    sounds = ("audio/a.wav", "audio/b.wav", "audio/c.wav", "d.wav")
    dataset = read_dataset(tree(rows("file,label", *TWO_AND_TWO, "e.wav,cat", sounds=sounds)))
    # The missing one is looked for where the others are.
    assert [dataset.relative(item) for item in dataset.items] == [*sounds, "audio/e.wav"]
    assert "in audio/" in dataset.layout


def test_jsonl_and_tsv_say_the_same_as_csv(tree):
    records = [
        f'{{"file_name": "{sound}", "label": "{label}"}}' for sound, label in map(lambda r: r.split(","), TWO_AND_TWO)
    ]
    root = tree(
        {
            "t.csv": "\ufefffile,label\n" + "\n".join(TWO_AND_TWO),
            "t.tsv": "file\tlabel\n" + "\n".join(TWO_AND_TWO).replace(",", "\t"),
            "semicolons.csv": "file;label\r\n" + "\r\n".join(TWO_AND_TWO).replace(",", ";"),
            "excel.csv": "sep=;\r\nfile;label\r\n" + "\r\n".join(TWO_AND_TWO).replace(",", ";"),
            "t.jsonl": "\n".join(records),
            **dict.fromkeys(["a.wav", "b.wav", "c.wav", "d.wav"], ""),
        }
    )
    first, *others = (
        read_dataset(root / name) for name in ("t.csv", "t.tsv", "semicolons.csv", "excel.csv", "t.jsonl")
    )
    for other in others:
        assert other.items == first.items
        assert other.fingerprint() == first.fingerprint()


def test_a_table_may_give_segments_splits_folds_and_groups(tree):
    root = tree(
        rows(
            "file,label,start,end,split,fold,group",
            "a.wav,dog,0,1.5,train,1,x",
            "a.wav,cat,1.5,,valid,2,x",
            "b.wav,dog,,2,test,1,",
            "b.wav,cat,2,3e0,TRAIN,10,y",
        )
    )
    dataset = read_dataset(root)
    assert [(item.start, item.end) for item in dataset.items] == [(0, 1.5), (1.5, None), (0, 2), (2, 3)]
    assert [item.split for item in dataset.items] == ["train", "validation", "test", "train"]
    assert [item.group for item in dataset.items] == ["x", "x", None, "y"]
    assert dataset.folds == ("1", "2", "10")


def test_several_labels_are_detected_and_announced(tree):
    lines = ("a.wav,dog;cat", "b.wav,dog|cat | dog", "c.wav,", 'd.wav,"bird, small;bird, small"', 'e.wav,"bird, small"')
    dataset = read_dataset(tree(rows("file,label", *lines)))
    assert dataset.task == "multi-label" and "multi-label" in dataset.layout
    assert dataset.labels == ("bird, small", "cat", "dog")
    assert dataset.targets().tolist() == [[0, 1, 1], [0, 1, 1], [0, 0, 0], [1, 0, 0], [1, 0, 0]]


def test_a_column_called_labels_may_be_empty(tree):
    dataset = read_dataset(tree(rows("file,labels", "a.wav,bird", "b.wav,bird", "c.wav,", "d.wav,")))
    assert dataset.task == "multi-label"
    assert "multi-label (2 have no label, such as c.wav, and none has several)" in dataset.layout
    assert dataset.labels == ("bird",)


def test_labels_in_jsonl_may_be_lists_and_numbers(tree):
    records = ['{"audio": "a.wav", "labels": ["x;y", 3]}', '{"audio": "b.wav", "labels": [3, "x;y"]}']
    dataset = read_dataset(tree({"metadata.jsonl": "\n".join(records), "a.wav": "", "b.wav": ""}))
    assert dataset.labels == ("3", "x;y")


@pytest.mark.parametrize("column", ["group", "speaker", "actor", "src_file"])
def test_columns_that_tie_clips_together_are_recognized(tree, column):
    dataset = read_dataset(tree(rows(f"file,label,{column}", *(f"{row},{i % 2}" for i, row in enumerate(TWO_AND_TWO)))))
    assert dataset.group_name == column
    assert [item.group for item in dataset.items] == ["0", "1", "0", "1"]
    assert f"`{column}`" in dataset.layout


def test_columns_are_chosen_by_name(tree):
    root = tree(
        rows("file,label,speaker,site,part", *(f"{row},s{i},p{i % 2},f{i % 2}" for i, row in enumerate(TWO_AND_TWO)))
    )
    dataset = read_dataset(root, label="site", group="part", fold="part")
    assert dataset.labels == ("p0", "p1")
    assert dataset.group_name == dataset.fold_name == "part"
    assert dataset.folds == ("f0", "f1")


def test_the_label_column_is_never_the_group(tree):
    root = tree(rows("file,label,speaker", *(f"{row},s{i % 2}" for i, row in enumerate(TWO_AND_TWO))))
    assert read_dataset(root, label="speaker").group_name is None


def test_named_folds_put_the_official_split_aside(tree):
    root = tree(rows("file,label,split,kit", *(f"{row},train,{i % 2}" for i, row in enumerate(TWO_AND_TWO))))
    assert {item.split for item in read_dataset(root, fold="kit").items} == {None}
    assert {item.split for item in read_dataset(root).items} == {"train"}


def test_tables_below_train_and_test_give_the_split(tree):
    table = "file_name,label\n" + "\n".join(TWO_AND_TWO)
    sounds = [f"{part}/{name}.wav" for part in ("train", "test") for name in "abcd"]
    dataset = read_dataset(tree({"train/metadata.csv": table, "test/metadata.csv": table, **dict.fromkeys(sounds, "")}))
    assert Counter(item.split for item in dataset.items) == {"train": 4, "test": 4}
    assert len({item.file for item in dataset.items}) == 8


def test_recordings_beside_the_tables_of_a_split_are_left_out_and_counted(tree):
    table = "file_name,label\n" + "\n".join(TWO_AND_TWO)
    sounds = [f"{part}/{name}.wav" for part in ("train", "eval", "noise") for name in "abcd"]
    dataset = read_dataset(tree({"train/meta.csv": table, "eval/meta.csv": table, **dict.fromkeys(sounds, "")}))
    assert len(dataset) == 8 and "recordings beside eval/, train/ are left out (4)" in dataset.layout


def test_a_folder_named_after_two_classes_is_of_both(tree):
    dataset = read_dataset(tree([*CLASSES, "cat,dog/1.wav"]))
    assert dataset.labels == ("cat", "dog") and dataset.task == "multi-label"


def test_esc50_is_read_as_published(tree):
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    names = [f"{fold}-{fold}0{target}-A-{target}.wav" for fold in range(1, 6) for target in (0, 14)]
    lines += [f"{name},{name[0]},{name[-5]},class{name[8:-4]},True,{name[2:5]},A" for name in names]
    dataset = read_dataset(tree({"meta/esc50.csv": "\n".join(lines), **{f"audio/{name}": "" for name in names}}))
    assert "ESC-50" in dataset.layout
    assert dataset.folds == ("1", "2", "3", "4", "5")
    assert dataset.group_name == "src_file"
    assert all(os.path.isfile(item.file) for item in dataset.items)


def urbansound(tree, *, table="metadata/UrbanSound8K.csv", file="slice_file_name"):
    """UrbanSound8K in small; each slice says where it lay in another recording."""
    header = f"{file},fsID,start,end,salience,fold,classID,class"
    names = {f"{n}-{c}-0-0.wav": (n, c, 1 + n % 3) for n in range(12) for c in (n % 2,)}
    lines = [f"{name},{n},{20 + n},{24 + n},1,{fold},{c},class{c}" for name, (n, c, fold) in names.items()]
    folders = {f"audio/fold{fold}/{name}": "" for name, (_, _, fold) in names.items()}
    return tree({table: "\n".join([header, *lines]), **folders})


@pytest.mark.parametrize("place", ["", "audio", "metadata/UrbanSound8K.csv"])
def test_urbansound8k_is_read_as_published(tree, place):
    dataset = read_dataset(urbansound(tree) / place)
    assert dataset.layout.startswith(
        "UrbanSound8K as published (metadata/UrbanSound8K.csv and audio/, labels from `class`)"
    )
    assert "`start` and `end` say where each clip was cut from another recording" in dataset.layout
    assert (dataset.group_name, dataset.fold_name, dataset.folds) == ("fsID", "fold", ("1", "2", "3"))
    assert all(os.path.isfile(item.file) and (item.start, item.end) == (0, None) for item in dataset.items)
    assert len({item.file for item in dataset.items}) == 12


def test_a_slice_is_not_cut_again_where_somebody_renamed_the_column_of_files(tree):
    root = urbansound(tree, table="audio/mine.csv", file="file")
    table = root / "audio" / "mine.csv"
    table.write_text(
        "\n".join(
            line if not at else f"fold{line.split(',')[5]}/{line}"
            for at, line in enumerate(table.read_text().splitlines())
        )
    )
    dataset = read_dataset(table)
    assert all(os.path.isfile(item.file) and (item.start, item.end) == (0, None) for item in dataset.items)
    assert "another recording (UrbanSound8K), and are not used" in dataset.layout


def test_fsd50k_is_read_as_published(tree):
    truth = {
        "dev": '1,"Bark,Dog",m,train\n2,"Bark,Dog",m,val\n',
        "eval": '3,"Bark,Dog",m\n4,"Dog,Animal",m\n5,Animal,m\n',
    }
    root = tree(
        {
            "FSD50K.ground_truth/dev.csv": "fname,labels,mids,split\n" + truth["dev"],
            "FSD50K.ground_truth/eval.csv": "fname,labels,mids\n" + truth["eval"],
            **dict.fromkeys(
                [f"FSD50K.{part}_audio/{n}.wav" for part, ns in (("dev", "12"), ("eval", "345")) for n in ns], ""
            ),
        }
    )
    dataset = read_dataset(root)
    assert dataset.layout.startswith("FSD50K as published") and dataset.labels == ("Animal", "Bark", "Dog")
    assert [item.split for item in dataset.items] == ["train", "validation", "test", "test", "test"]
    assert all(os.path.isfile(item.file) for item in dataset.items)


def test_speech_commands_has_the_split_of_its_lists(tree):
    clips = [f"{word}/{speaker}_nohash_0.wav" for word in ("yes", "no") for speaker in "abcd"]
    root = tree(
        {
            **dict.fromkeys([*clips, "_background_noise_/pink.wav"], ""),
            "validation_list.txt": "yes/a_nohash_0.wav\nno/a_nohash_0.wav\n",
            "testing_list.txt": "yes/b_nohash_0.wav\nno/b_nohash_0.wav\n",
        }
    )
    dataset = read_dataset(root)
    assert dataset.labels == ("no", "yes")
    assert Counter(item.split for item in dataset.items) == {"train": 4, "validation": 2, "test": 2}
    assert "_background_noise_/ is no class and is left out (1)" in dataset.layout


OPENMIC = {
    "000046_3840": ("train", "a1", {"clarinet": 0.17105, "flute": 0.0, "trumpet": 0.9}),
    "000135_483840": ("train", "a2", {"flute": 0.8, "clarinet": 0.51}),
    "000139_119040": ("test", "a3", {"trumpet": 1.0, "clarinet": 0.7}),
    "155294_211200": ("test", "a4", {"flute": 0.6, "clarinet": 0.5}),
}


def openmic(**more: str) -> dict[str, str]:
    """Files in the layout of the published archive."""
    rows = [f"{key},{name},{value},3" for key, (_, _, own) in OPENMIC.items() for name, value in own.items()]
    about = [f"{key.split('_')[0]},{artist},{key}" for key, (_, artist, _) in OPENMIC.items()]
    parts = {part: [key for key in OPENMIC if OPENMIC[key][0] == part] for part in ("train", "test")}
    return {
        "openmic-2018-aggregated-labels.csv": "\n".join(["sample_key,instrument,relevance,num_responses", *rows]),
        "openmic-2018-metadata.csv": "\n".join(["track_id,artist_id,sample_key", *about]),
        "openmic-2018.npz": "",
        "class-map.json": '{"clarinet": 0, "flute": 1, "trumpet": 2}',
        **{f"partitions/split01_{part}.csv": "\n".join(keys) + "\n" for part, keys in parts.items()},
        **{f"audio/{key[:3]}/{key}.ogg": "" for key in OPENMIC},
        **{f"vggish/{key[:3]}/{key}.json": "{}" for key in OPENMIC},
        **more,
    }


@pytest.mark.parametrize("place", ["", "audio", "openmic-2018-aggregated-labels.csv"])
def test_openmic_is_read_as_published_with_what_nobody_judged_unknown(tree, place):
    dataset = read_dataset(tree(openmic()) / place)
    assert dataset.labels == ("clarinet", "flute", "trumpet") and dataset.task == "multi-label"
    assert all(os.path.isfile(item.file) for item in dataset.items)
    assert [item.file.stem for item in dataset.items] == list(OPENMIC)
    assert [item.split for item in dataset.items] == ["train", "train", "test", "test"]
    assert [item.group for item in dataset.items] == ["a1", "a2", "a3", "a4"] and dataset.group_name == "artist_id"
    assert dataset.targets().tolist() == [[0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 0]]  # 0.5 itself is no
    assert dataset.known().tolist() == [[1, 1, 1], [1, 1, 0], [1, 0, 1], [1, 1, 0]]
    assert "OpenMIC-2018 as published" in dataset.layout
    assert "9 of 12 labels are known; the others count in no loss and in no score" in dataset.layout
    assert split_dataset(dataset, validation=0.0).test.tolist() == [2, 3]


def test_data_whose_labels_are_all_known_say_so_and_a_fingerprint_tells_them_apart(tree):
    root = tree(openmic())
    dataset = read_dataset(root)
    whole = replace(dataset, items=tuple(replace(item, unknown=()) for item in dataset.items))
    assert whole.known() is None and whole.fingerprint() != dataset.fingerprint()
    assert read_dataset(root, labels=["trumpet", "clarinet", "flute"]).known().tolist()[1] == [0, 1, 1]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"openmic-2018-aggregated-labels.csv": "clip,instrument,relevance\n1,flute,1"}, "no column 'sample_key'"),
        ({"openmic-2018-aggregated-labels.csv": "sample_key,instrument,relevance\n../x,flute,1"}, "line 2"),
        ({"openmic-2018-aggregated-labels.csv": "sample_key,instrument,relevance\n1_2,flute,many"}, "'many'"),
        ({"openmic-2018-aggregated-labels.csv": "sample_key,instrument,relevance\n1_2,flute,nan"}, "0 to 1"),
        ({"openmic-2018-aggregated-labels.csv": "sample_key,instrument,relevance\n"}, "has no clip that partitions/"),
        ({"openmic-2018-metadata.csv": "sample_key\n1_2"}, "no column 'artist_id'"),
        ({"partitions/split01_test.csv": ""}, "no name"),
    ],
)
def test_a_damaged_openmic_is_refused(tree, files, said):
    assert said in refusal(tree(openmic(**files)))


def test_openmic_without_its_table_is_refused_for_its_pickles_and_without_sound_for_that(tree):
    root = tree(openmic())
    assert "--label" in refusal(root, label="instrument")
    shutil.rmtree(root / "audio")
    assert "none of the 4 recordings" in refusal(root)
    (root / "openmic-2018-aggregated-labels.csv").unlink()
    assert "pickled objects, which can run code and are not read" in refusal(root)


def tau(**more: str) -> dict[str, str]:
    """Files in the layout of the development set of TAU Urban Acoustic Scenes 2020 Mobile."""
    names = [
        f"audio/{scene}-{city}-{number}-{number}-{device}.wav"
        for number, (scene, city, device) in enumerate(
            (scene, city, device)
            for scene in ("airport", "tram")
            for city in ("lyon", "milan")
            for device in ("a", "b", "s1", "s4")
        )
    ]
    rows = [
        "\t".join([name, scene, f"{city}-{number}", device])
        for name in names
        for scene, city, number, _, device in [name[len("audio/") : -len(".wav")].split("-")]
    ]
    train = [name for name in names if "lyon" in name and "-s4" not in name]
    test = [name for name in names if "milan" in name]
    scene_of = {name: name[len("audio/") :].split("-")[0] for name in names}
    return {
        "meta.csv": "\n".join(["filename\tscene_label\tidentifier\tsource_label", *rows]) + "\n",
        "evaluation_setup/fold1_train.csv": "\n".join(
            ["filename\tscene_label", *(f"{n}\t{scene_of[n]}" for n in train)]
        ),
        "evaluation_setup/fold1_test.csv": "\n".join(["filename", *test]),
        "evaluation_setup/fold1_evaluate.csv": "\n".join(
            ["filename\tscene_label", *(f"{n}\t{scene_of[n]}" for n in test)]
        ),
        "README.md": "",
        **dict.fromkeys(names, ""),
        **more,
    }


def test_the_scenes_of_dcase_2020_are_read_as_published(tree):
    dataset = read_dataset(tree(tau()))
    assert dataset.labels == ("airport", "tram") and dataset.task == "single-label" and dataset.known() is None
    assert Counter(item.split for item in dataset.items) == {"train": 6, "test": 8}
    assert dataset.group_name == "identifier" and dataset.items[0].group == "lyon-0"
    assert all(os.path.isfile(item.file) for item in dataset.items)
    for part in (
        "TAU Urban Acoustic Scenes as published",
        "recordings in neither are left out (2)",
        "devices from `source_label`: a, b, s1 in train; a, b, s1, s4 in test",
    ):
        assert part in dataset.layout


def test_damaged_lists_of_scenes_are_refused(tree):
    train = "evaluation_setup/fold1_train.csv"
    assert "no column 'filename'" in refusal(tree(tau(**{train: "file\naudio/x.wav"})))
    sentence = refusal(tree(tau(**{train: "filename\tscene_label\naudio/x.wav\ttram"})))
    assert "names audio/x.wav, which is not in meta.csv (1 such recordings)" in sentence


def test_esc50_is_found_from_its_table(tree):
    names = [f"{fold}-{fold}0-A-{target}.wav" for fold in (1, 2) for target in (0, 14)]
    lines = ["filename,fold,category,src_file", *(f"{name},{name[0]},c{name[7:-4]},{name[2:4]}" for name in names)]
    root = tree({"meta/esc50.csv": "\n".join(lines), **{f"audio/{name}": "" for name in names}})
    for place in ("meta/esc50.csv", "audio"):
        assert all(os.path.isfile(item.file) for item in read_dataset(root / place).items)


def test_paths_written_on_windows_are_found(tree):
    lines = (row.replace("a.wav", "x\\a.wav") for row in TWO_AND_TWO)
    dataset = read_dataset(tree(rows("file,label", *lines, sounds=("x/a.wav", "b.wav", "c.wav", "d.wav"))))
    assert dataset.relative(dataset.items[0]) == "x/a.wav"


def test_missing_files_stay_in_and_are_counted(tree):
    dataset = read_dataset(tree(rows("file,label", *TWO_AND_TWO, sounds=("b.wav",))))
    assert len(dataset.items) == 4
    assert "3 of 4 clips have no file" in dataset.layout


def test_the_labels_of_a_model_keep_their_order_and_allow_small_classes(tree):
    dataset = read_dataset(tree(["dog/1.wav"]), labels=["dog", "ape", "cat"])
    assert dataset.labels == ("dog", "ape", "cat")
    assert dataset.targets().tolist() == [[True, False, False]]


# ---------------------------------------------------------------- the list of layouts


def test_the_layouts_are_asked_in_this_order():
    files = [type(layout).__module__.removeprefix("ossicle.data.") for layout in layouts.LAYOUTS]
    assert files == [
        "layouts.ag_news",
        "layout",  # ESC-50
        "layouts.fsd50k",
        "layouts.openmic",
        "layouts.shards",
        "layouts.tau_scenes",
        "layout",  # UrbanSound8K
        "layouts.table",
        "layouts.split_tables",
        "layouts.label_tracks",
        "layouts.speech_commands",
        "layouts.class_folders",
    ]


def test_another_layout_is_one_file(tree, tmp_path_factory, monkeypatch):
    """Labels in the names of files, as ESC-50's first version had them."""
    folder = tmp_path_factory.mktemp("layouts")
    (folder / "named_after_labels.py").write_text(NAMED_AFTER_LABELS)
    monkeypatch.setattr(layouts, "__path__", [*layouts.__path__, str(folder)])
    monkeypatch.setattr(layouts, "LAYOUTS", layouts.find_layouts())
    monkeypatch.delitem(sys.modules, "ossicle.data.layouts.named_after_labels")
    dataset = read_dataset(tree(["dog-1.wav", "dog-2.wav", "cat-1.wav", "cat-2.wav"]))
    assert dataset.layout.startswith("files named after their labels: 4 clips, 2 classes")
    assert dataset.labels == ("cat", "dog")


NAMED_AFTER_LABELS = """
from ossicle.data.items import Item
from ossicle.data.layout import DataLayout, LayoutContents


class NamedAfterLabels(DataLayout):
    precedence = 50

    def detect(self, root, options):
        return [file for file in root.files if "-" in file.name] or None

    def read(self, root, found, options):
        items = tuple(Item(file=file, labels=(file.stem.split("-")[0],)) for file in found)
        return LayoutContents(items=items, description="files named after their labels")


LAYOUT = NamedAfterLabels()
"""


# ---------------------------------------------------------------- the fingerprint


def test_the_fingerprint_follows_what_training_depends_on(tree, tmp_path):
    lines = [f"{row},{i}" for i, row in enumerate(TWO_AND_TWO)]
    root = tree(rows("file,label,start", *lines))
    before = read_dataset(root).fingerprint()
    assert read_dataset(root).fingerprint() == before
    (root / "a.wav").write_text("longer")
    resized = read_dataset(root).fingerprint()
    (root / "meta.csv").write_text("\n".join(["file,label,start", *lines]).replace("a.wav,dog,0", "a.wav,dog,0.5"))
    moved = read_dataset(root).fingerprint()
    assert len({before, resized, moved}) == 3


def test_the_fingerprint_is_the_same_wherever_the_folder_lies(tree, tmp_path):
    for place in ("here", "some/where else"):
        tree([f"{place}/{name}" for name in CLASSES])
    assert read_dataset(tmp_path / "here").fingerprint() == read_dataset(tmp_path / "some/where else").fingerprint()


# ---------------------------------------------------------------- refusals


def refusal(path, **options) -> str:
    with pytest.raises(DataRefused) as caught:
        read_dataset(path, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith(".")
    return sentence


def test_no_such_path_is_refused(tmp_path):
    assert "does not exist" in refusal(tmp_path / "nowhere")


def test_an_empty_folder_is_refused(tmp_path):
    sentence = refusal(tmp_path)
    assert "holds no recordings" in sentence and "folder per class" in sentence and str(tmp_path) in sentence


def test_recordings_without_labels_are_refused(tree):
    assert "2 recordings but no labels" in refusal(tree(["1.wav", "2.wav"]))


def test_a_table_with_another_name_is_pointed_at(tree):
    assert "labels.csv" in refusal(tree({"labels.csv": "file,label\n1.wav,dog", "1.wav": ""}))


def test_a_recording_is_no_data_set(tree):
    assert ".csv, .tsv, .jsonl" in refusal(tree(["a.wav"]) / "a.wav")


def test_a_class_with_one_clip_is_named(tree):
    assert "'ape'" in refusal(tree([*CLASSES, "ape/1.wav"]))
    assert "2 more such classes" in refusal(tree(["bat/1.wav", "cow/1.wav"]))


def test_one_class_only_is_refused_with_a_way_out(tree):
    sentence = refusal(tree(["audio/dog/1.wav", "audio/cat/2.wav"]))
    assert "one class only (audio)" in sentence and os.path.join("", "audio") in sentence.split("give the path")[1]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["name,label", *TWO_AND_TWO], ["file, filename, file_name, path, audio", "found are name, label"]),
        (["file,species", *TWO_AND_TWO], ["label, labels, category, class", "file, species", "--label"]),
        (["file,label"], ["holds no rows"]),
        ([""], ["is empty"]),
        (["file,label,label", "a.wav,dog,dog"], ["'label' twice"]),
        (["file,label", "a.wav,dog", "b.wav"], ["line 3", "1 cells", "has 2"]),
        (["file,label", "a.wav,dog,brown"], ["line 2", "3 cells"]),
        (["file,label", 'a.wav,"dog'], ["no valid CSV"]),
        (["file,label", *TWO_AND_TWO, "", "a.wav,dog"], ["line 7", "repeats the clip of line 2", "a.wav"]),
        (["file,label", "a.wav,dog", "a.wav,cat"], ["repeats", "; or |"]),
        (["file,label", *TWO_AND_TWO, "e.wav, "], ["line 6", "no label"]),
        (["file,label", ",dog"], ["line 2", "names no file"]),
        (["file,label,start,end", "a.wav,dog,2,2"], ["line 2", "starts at 2 s and ends at 2 s"]),
        (["file,label,start,end", "a.wav,dog,,0"], ["starts at 0 s and ends at 0 s"]),
        (["file,label,start", "a.wav,dog,-1"], ["'-1'", "'start'", "0 or more"]),
        (["file,label,end", "a.wav,dog,nan"], ["'nan'"]),
        (["file,label,end", "a.wav,dog,inf"], ["'inf'"]),
        (["file,label,end", "a.wav,dog,soon"], ["'soon'"]),
        (["file,label,split", "a.wav,dog,holdout"], ["'holdout'", "train or training", "val"]),
        (["file,label,split", "a.wav,dog,"], ["''", "train or training"]),
        (["file,label,fold", "a.wav,dog,1", "b.wav,dog,"], ["line 3", "no fold"]),
        (["file,label", "x.wav,dog", "y.wav,cat"], ["none of the 2 files", "x.wav", "audio"]),
        (["file,label", "nul\0.wav,dog"], ["none of the 1 files"]),
        (["file,label", "x" * 5000 + ",dog"], ["none of the 1 files"]),
        (["file,labels", "a.wav,", "b.wav,"], ["no clip", "label"]),
        (["file,label", "a.wav,dog", "b.wav,dog"], ["one class only (dog)"]),
    ],
)
def test_a_bad_table_is_refused_with_what_was_found_and_what_is_allowed(tree, lines, said):
    sentence = refusal(tree(rows(*lines)))
    for part in said:
        assert part in sentence


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 1"),
        ("[1]", "no JSON object"),
        ("[" * 100_000, "line 1"),
        ('{"file": ["a.wav"], "label": "x"}', "expected a text"),
        ('{"file": "a.wav", "label": true}', "True"),
        ('{"file": "a.wav", "label": [{}]}', "expected a text"),
        ('{"file": "a.wav", "label": "x", "start": NaN}', "'nan'"),
        ('{"label": "x"}', "no column of file names"),
        ("", "is empty"),
    ],
)
def test_bad_jsonl_is_refused(tree, line, said):
    assert said in refusal(tree({"meta.jsonl": line, "a.wav": ""}))


def test_a_table_that_is_not_utf8_is_refused_with_the_line(tree):
    root = tree(["a.wav"])
    (root / "meta.csv").write_bytes("file,label\na.wav,möwe\n".encode("latin-1"))
    sentence = refusal(root)
    assert "not UTF-8" in sentence and "line 2" in sentence and "0xf6" in sentence
    (root / "meta.csv").write_text("file,label\na.wav,dog\n", encoding="utf-16")
    assert "not UTF-8" in refusal(root)


@pytest.mark.parametrize("option", ["label", "group", "fold"])
def test_a_column_that_is_not_there_is_refused_with_those_that_are(tree, option):
    sentence = refusal(tree(rows("file,label", *TWO_AND_TWO)), **{option: "site"})
    assert "'site'" in sentence and f"--{option}" in sentence and "file, label" in sentence


def test_column_options_need_a_table(tree):
    assert "--group site" in refusal(tree(CLASSES), group="site")


def test_a_label_that_is_not_in_the_list_is_refused_with_the_nearest(tree):
    sentence = refusal(tree(["kat/1.wav", "dog/1.wav"]), labels=["dog", "cat", "horse"])
    assert "'kat'" in sentence and "cat" in sentence.split("nearest:")[1] and "3 allowed" in sentence


def test_the_list_of_labels_must_not_repeat_itself(tree):
    with pytest.raises(ValueError, match="differ"):
        read_dataset(tree(CLASSES), labels=["dog", "dog", "cat"])


# ---------------------------------------------------------------- real data sets


@pytest.mark.parametrize(
    ("name", "clips", "classes", "group", "folds"),
    [
        ("esc50", 2000, 50, "src_file", 5),
        ("ravdess", 1440, 8, "actor", 0),
        ("emodb", 339, 4, "speaker", 0),
        ("fsdd", 3000, 10, "speaker", 0),
    ],
)
def test_real_data_sets_are_read_without_a_flag(shared, name, clips, classes, group, folds):
    dataset = read_dataset(shared / name)
    assert (len(dataset.items), len(dataset.labels), dataset.group_name) == (clips, classes, group)
    assert len(dataset.folds) == folds
    assert all(os.path.isfile(item.file) for item in dataset.items)
    split = split_dataset(dataset)
    assert 0.09 < len(split.test) / clips < 0.26
    assert 0.10 < len(split.validation) / (clips - len(split.test)) < 0.20


def test_speech_may_be_tested_by_speaker_instead_of_by_its_official_split(shared):
    dataset = read_dataset(shared / "fsdd", fold="speaker")
    assert len(dataset.folds) == 6
    split = split_dataset(dataset, fold="theo")
    assert {dataset.items[row].group for row in split.test} == {"theo"}

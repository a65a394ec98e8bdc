"""Calibration samples: lists and folders as users have them, and the mistakes they have."""

import shutil

import pytest
from PIL import Image

from mmedge.core.samples import Sample, choose_samples, doubt_samples, read_samples
from mmedge.errors import InputError


@pytest.fixture
def pictures(tmp_path):
    """Five different pictures, one of them in a folder of its own."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for index, name in enumerate(("b.png", "a.jpg", "more/c.PNG", "d.webp", "e.bmp")):
        Image.new("RGB", (4, 4), (index * 40, 0, 0)).save(folder / name)
    return folder


def test_a_folder_gives_all_its_pictures_in_the_order_of_their_names(pictures):
    assert [sample.id for sample in read_samples(pictures)] == ["a.jpg", "b.png", "d.webp", "e.bmp", "more/c.PNG"]


def test_a_folder_is_read_without_what_is_no_picture(pictures):
    (pictures / "notes.txt").write_text("hello")
    (pictures / ".hidden.png").write_bytes(b"")
    (pictures / "folder.png").mkdir()
    assert len(read_samples(pictures)) == 5


def test_a_csv_gives_its_rows_with_paths_relative_to_it(pictures):
    (pictures / "list.csv").write_text('image,question,answer,caption\nb.png,"what, where?",a cat,\na.jpg,,,two dogs\n')
    first, second = read_samples(pictures / "list.csv")
    assert first == Sample("b.png, line 2", pictures / "b.png", "what, where?", "a cat", None)
    assert second == Sample("a.jpg, line 3", pictures / "a.jpg", None, None, "two dogs")


def test_a_csv_may_have_a_byte_order_mark_other_columns_and_line_breaks_in_quotes(pictures):
    (pictures / "list.csv").write_text('number,image,question\r\n1,b.png,"what\nis it?"\r\n', encoding="utf-8-sig")
    assert read_samples(pictures / "list.csv")[0].question == "what\nis it?"


def test_a_jsonl_gives_its_lines(pictures):
    (pictures / "list.jsonl").write_text('{"image": "b.png", "question": "what?"}\n\n{"image": "a.jpg", "size": 4}\n')
    samples = read_samples(pictures / "list.jsonl")
    assert [(sample.id, sample.question) for sample in samples] == [("b.png, line 1", "what?"), ("a.jpg, line 3", None)]


def test_a_list_may_name_absolute_paths(pictures, tmp_path):
    (tmp_path / "list.csv").write_text(f"image\n{pictures / 'b.png'}\n")
    assert read_samples(tmp_path / "list.csv")[0].image == pictures / "b.png"


def test_a_recipe_names_what_lies_beside_it_first(pictures):
    assert len(read_samples("more", pictures)) == 1


def test_a_recipe_names_the_sets_of_mmedge_next(tmp_path):
    samples = read_samples("scenes/calibration.jsonl", tmp_path)
    assert len(samples) == 128
    assert all(sample.image.exists() and sample.question for sample in samples)


def test_data_that_is_not_there_is_refused_with_the_places_looked_at(tmp_path):
    with pytest.raises(InputError, match=r"`none` is not there: looked for `.*none` and `.*calib.none`") as caught:
        read_samples("none", tmp_path)
    assert caught.value.exit_code == 3


def test_a_name_that_is_too_long_for_the_system_is_not_there(tmp_path):
    with pytest.raises(InputError, match="is not there"):
        read_samples(tmp_path / ("a" * 300))


BAD_LISTS = {
    "no image column": ("list.csv", b"picture,question\nb.png,what?\n", "line 1: there is no column `image`"),
    "empty csv": ("list.csv", b"", "line 1: there is no column `image`"),
    "no rows": ("list.csv", b"image\n", "has no samples"),
    "too many fields": ("list.csv", b"image,question\nb.png,what?,why?\n", "line 2: the number of fields"),
    "too few fields": ("list.csv", b"image,question\nb.png\n", "line 2: the number of fields"),
    "open quote": ("list.csv", b'image\n"b.png\n', "line 2: "),
    "empty path": ("list.csv", b"image,question\n,what?\n", "line 2: `image` is empty"),
    "missing picture": ("list.csv", b"image\nb.png\nz.png\n", "line 3: there is no picture"),
    "nul in a path": ("list.jsonl", b'{"image": "a\\u0000b"}\n', "line 1: "),
    "not JSON": ("list.jsonl", b'{"image": "b.png"}\n{"image": \n', "line 2: "),
    "no image key": ("list.jsonl", b'{"picture": "b.png"}\n', "line 1: object missing required field `image`"),
    "number for a path": ("list.jsonl", b'{"image": 3}\n', r"line 1: expected `str`, got `int` - at `\$.image`"),
    "an array": ("list.jsonl", b"[]\n", "line 1: expected `object`, got `array`"),
    "empty jsonl": ("list.jsonl", b"\n\n", "has no samples"),
    "not UTF-8": ("list.csv", b"image\n\xff\xfe.png\n", "is not UTF-8 text: byte 6"),
    "another kind": ("list.txt", b"b.png\n", "is no calibration data"),
}


@pytest.mark.parametrize("name, content, message", BAD_LISTS.values(), ids=BAD_LISTS)
def test_a_bad_list_is_refused_by_file_and_line(pictures, name, content, message):
    (pictures / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}.*{message}"):
        read_samples(pictures / name)


def test_a_misspelled_image_column_is_recognised(pictures):
    (pictures / "list.csv").write_text("images\nb.png\n")
    with pytest.raises(InputError) as caught:
        read_samples(pictures / "list.csv")
    assert caught.value.hint == "rename the column `images`"


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="has no samples"):
        read_samples(tmp_path)


def test_a_choice_is_spread_over_all_samples(pictures):
    samples = [Sample(str(index), pictures) for index in range(100)]
    assert [sample.id for sample in choose_samples(samples, 4)] == ["0", "25", "50", "75"]
    assert len({sample.id for sample in choose_samples(samples, 37)}) == 37


def test_a_choice_of_more_than_there_is_takes_all(pictures):
    assert choose_samples(read_samples(pictures), 128) == read_samples(pictures)


def test_few_samples_are_doubted(pictures):
    (doubt,) = doubt_samples(read_samples(pictures))
    assert doubt.startswith("calibration has 5 samples: use at least 8")


def test_the_same_picture_under_two_names_is_doubted(pictures):
    for index in range(4):
        Image.new("RGB", (4, 4), (0, 200, index * 40)).save(pictures / f"f{index}.png")
    assert doubt_samples(read_samples(pictures)) == ()
    shutil.copy(pictures / "e.bmp", pictures / "z.bmp")
    assert doubt_samples(read_samples(pictures)) == ("1 of 10 calibration samples repeat others, such as `e.bmp`",)


def test_the_same_picture_with_another_question_is_not_doubted(pictures):
    lines = "".join(f'{{"image": "b.png", "question": "number {index}?"}}\n' for index in range(8))
    (pictures / "list.jsonl").write_text(lines)
    assert doubt_samples(read_samples(pictures / "list.jsonl")) == ()


def test_where_sounds_are_asked_for_a_folder_gives_its_sounds(pictures):
    for name in ("b.wav", "more/a.FLAC", "c.ogg", "d.mp3"):
        (pictures / name).write_bytes(b"x")
    found = read_samples(pictures, modality="audio")
    assert [sample.id for sample in found] == ["b.wav", "c.ogg", "d.mp3", "more/a.FLAC"]
    assert found[0].audio == found[0].file == pictures / "b.wav" and found[0].image is None
    assert len(read_samples(pictures)) == 5


def test_a_folder_without_sounds_says_what_was_looked_for(pictures):
    with pytest.raises(InputError, match="has no samples") as caught:
        read_samples(pictures, modality="audio")
    assert caught.value.hint == "sounds end in .flac, .mp3, .ogg, .wav"


@pytest.mark.parametrize("name", ["list.csv", "list.jsonl"])
def test_a_list_has_a_column_of_sounds(pictures, name):
    (pictures / "b.wav").write_bytes(b"x")
    (pictures / "list.csv").write_text("audio,caption\nb.wav,a bell\n")
    (pictures / "list.jsonl").write_text('{"audio": "b.wav", "caption": "a bell"}\n')
    (sample,) = read_samples(pictures / name, modality="audio")
    assert (sample.audio, sample.image, sample.caption) == (pictures / "b.wav", None, "a bell")


def test_a_list_of_pictures_is_none_of_sounds(pictures):
    (pictures / "list.csv").write_text("image\nb.png\n")
    (pictures / "list.jsonl").write_text('{"image": "b.png"}\n')
    with pytest.raises(InputError, match="line 1: there is no column `audio`"):
        read_samples(pictures / "list.csv", modality="audio")
    with pytest.raises(InputError, match=r"line 1: .*`audio`"):
        read_samples(pictures / "list.jsonl", modality="audio")
    (pictures / "list.csv").write_text("audio\nnone.wav\n")
    with pytest.raises(InputError, match="there is no sound `"):
        read_samples(pictures / "list.csv", modality="audio")

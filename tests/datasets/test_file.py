"""The user's files, tables as they are downloaded and arrays: what is read, noted and refused."""

import numpy as np
import pandas as pd
import pytest

import convexnn_bench as cnn
from convexnn_bench.plugins.registry import DATASETS

RNG = np.random.default_rng(0)


@pytest.fixture
def load(tmp_path):
    """Return a function that writes a text to a file and returns its data."""

    def loaded(content, name="data.csv", **parameters):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return DATASETS.get("file")(path=str(path), **parameters).data()

    return loaded


def refused(load, content, *words, **parameters):
    with pytest.raises(cnn.InputError) as caught:
        load(content, **parameters)
    missing = [word for word in words if word not in str(caught.value)]
    assert not missing, f"{missing} not in: {caught.value}"


# -- the files of the UCI repository -------------------------------------------------------------------------


def lines(rows, end="\n"):
    return "".join(",".join(map(str, row)) + end for row in rows)


FLOWERS = np.round(RNG.uniform(0.1, 7.9, (9, 4)), 1)
KINDS = ("Iris-setosa", "Iris-versicolor", "Iris-virginica")
IRIS = lines([*row, KINDS[i // 3]] for i, row in enumerate(FLOWERS.tolist())) + "\n"
RETURNS = np.round(RNG.uniform(-1, 1, (8, 32)), 5)
IONOSPHERE = lines([1, 0, *row, "g" if i % 3 else "b"] for i, row in enumerate(RETURNS.tolist()))
PATIENTS = np.column_stack(
    [
        *(RNG.integers(0, 15, 7), RNG.integers(60, 200, 7), RNG.integers(40, 90, 7), RNG.integers(0, 60, 7)),
        *(np.full(7, 0), np.round(RNG.uniform(20, 40, 7), 1), np.round(RNG.uniform(0.1, 2, 7), 3), np.arange(21, 28)),
    ]
)
PIMA = lines([*(f"{value:g}" for value in row), i % 2] for i, row in enumerate(PATIENTS))
NOTES = np.round(RNG.uniform(-7, 7, (6, 4)), 5)
BANKNOTE = lines(([*row, i // 3] for i, row in enumerate(NOTES.tolist())), end="\r\n")


@pytest.mark.parametrize("told", [{}, {"header": "no", "target": -1}, {"header": False, "target": 4}], ids=str)
def test_iris_as_it_is_downloaded(load, told):
    data = load(IRIS, "iris.data", **told)
    np.testing.assert_array_equal(data.X, FLOWERS)
    np.testing.assert_array_equal(data.Y, np.eye(3)[np.arange(9) // 3])
    assert (data.classes, data.defaults["loss"]) == (KINDS, "cross_entropy")
    assert ("No header was found" in " ".join(data.notes)) == (not told)


def test_iris_in_brackets(tmp_path):
    path = tmp_path / "iris.data"
    path.write_text(IRIS)
    problem = cnn.make_problem(f"file[path={path},header=no,target=-1]")
    assert (problem.X.shape, problem.loss.name, problem.classes) == ((9, 4), "cross_entropy", KINDS)
    assert problem.notes == (f"The target has 3 classes, in the order of the outputs: {', '.join(map(repr, KINDS))}.",)


@pytest.mark.parametrize("name", ["ionosphere.data", "ionosphere.csv"])
def test_ionosphere_keeps_all_its_samples(load, name):
    data = load(IONOSPHERE, name)
    np.testing.assert_array_equal(data.X, np.column_stack([np.ones(8), np.zeros(8), RETURNS]))
    np.testing.assert_array_equal(data.Y[:, 0], np.where(np.arange(8) % 3, 1.0, -1.0))
    assert (data.classes, data.defaults["loss"]) == (("b", "g"), "logistic")


@pytest.mark.parametrize(
    ("content", "name", "X", "y"),
    [
        (PIMA, "pima-indians-diabetes.data", PATIENTS, np.arange(7) % 2),
        (BANKNOTE, "data_banknote_authentication.txt", NOTES, np.arange(6) // 3),
    ],
    ids=["pima", "banknote"],
)
def test_classes_that_are_numbers(load, content, name, X, y):
    values = load(content, name)
    np.testing.assert_allclose(values.X, X)
    np.testing.assert_array_equal(values.Y, y)
    ways = "targets=binary or targets=one_hot reads them as classes."
    assert values.notes[-1] == f"The target holds 2 different whole numbers; {ways}"
    assert values.defaults["loss"] == "squared"
    classes = load(content, name, targets="binary")
    np.testing.assert_array_equal(classes.Y[:, 0], 2 * y - 1)
    assert classes.classes == (0, 1)
    problem = cnn.Problem(values.X, values.Y, loss="cross_entropy", beta=0.1, patterns=3)
    assert problem.classes == (0, 1)


# -- header --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "X", "y", "first"),
    [
        ("a,b\n1,2\n3,4\n", [[1], [3]], [2, 4], "Line 1 was read as the header: a,b."),
        ("1,2\n3,4\n5,6\n", [[1], [3], [5]], [2, 4, 6], "No header was found, so that line 1 is a sample"),
        ("1.5,1.5\n3,4\n5,6\n", [[1.5], [3], [5]], [1.5, 4, 6], "No header"),
        ("0,0,0\n0,1,1\n1,1,0\n", [[0, 0], [0, 1], [1, 1]], [0, 1, 0], "No header"),
        ("rooms,2020\n1,5.5\n3,7.5\n", [[1], [3]], [5.5, 7.5], "Line 1 was read as the header: rooms,2020."),
        ("0,1,2\n0.5,1,2\n3,4,9\n", [[0.5, 1], [3, 4]], [2, 9], "Line 1 was read as the header: 0,1,2."),
        ("0,1,2\n6,1,2\n3,4,9\n", [[6, 1], [3, 4]], [2, 9], "Line 1 was read as the header"),
        ("2019,1\n2020,3\n2021,6\n", [[2019], [2020], [2021]], [1, 3, 6], "No header"),
        ("RI,Na\n1,2\n3,4\n", [[1], [3]], [2, 4], "Line 1 was read as the header: RI,Na."),
        ("Na,kind\n1,2\n3,4\n", [[1], [3]], [2, 4], "Line 1 was read as the header: Na,kind."),
        ("# made by hand\n#\na b\n1 2\n3 4\n", [[1], [3]], [2, 4], "2 lines at the top beginning with #"),
        ("1,5;2,5\n2,25;3,5\n", [[1.5], [2.25]], [2.5, 3.5], "No header"),
    ],
)
def test_a_header_is_found(load, content, X, y, first):
    data = load(content)
    np.testing.assert_array_equal(data.X, X)
    np.testing.assert_array_equal(data.Y, y)
    assert data.notes[0].startswith(first)


UNDECIDED = "line 1 may be a header or a sample"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("0,1\n1,0\n1,1\n", UNDECIDED),
        ("0,1,2\n2,1,0\n1,1,1\n", UNDECIDED),
        ("2018,2019,2020\n1.5,2.5,3.5\n4,5,6\n", UNDECIDED),
        ("country,2018,2019\nPeru,1.5,2\nChad,2,3\n", UNDECIDED),
        ("1.5,x,2.5\n3,4,5\n6,7,8\n", UNDECIDED),
        ("?,a\n3,b\n5,a\n", "column 0 (counted from 0) is missing ('?') in 1 rows, first in line 1"),
        (",2\n3,4\n5,6\n", "column 0 (counted from 0) is empty in 1 rows, first in line 1"),
    ],
)
def test_what_may_be_a_header_or_a_sample_is_asked(load, content, words):
    refused(load, content, words)


def test_a_header_of_numbers_may_be_told(load):
    years = "2018,2019,2020\n1.5,2.5,3.5\n4.5,5,6\n"
    for told in ({"header": "yes"}, {"header": True}, {"target": 2020}, {"target": "2020"}):
        data = load(years, **told)
        np.testing.assert_array_equal(data.X, [[1.5, 2.5], [4.5, 5]])
    assert load(years, header="no").X.shape == (3, 2)
    np.testing.assert_array_equal(load(years, target=2018).Y, [1.5, 4.5])
    assert load("0,1\n1,0\n1,1\n", header="no").X.shape == (3, 1)
    refused(load, "3,1,0\n.5,6,7\n1,2,3\n", "target=0 is the position of column '3'", target=0, header="yes")
    np.testing.assert_array_equal(load("3,1,0\n.5,6,7\n1,2,3\n", target="0", header="yes").Y, [7, 3])
    refused(load, years, "header must be one of 'auto', 'yes', 'no', got 'maybe'", header="maybe")


@pytest.mark.parametrize("index", [[0, 1, 2, 3], [7, 3, 5, 1], ["ann", "bob", "cy", "di"]], ids=str)
def test_an_index_without_a_name_is_left_out(load, index):
    frame = pd.DataFrame(np.round(RNG.standard_normal((4, 3)), 6), index=index)
    again = frame.copy()
    again.insert(0, "Unnamed: 0", index)
    for text in (frame.to_csv(), frame.add_prefix("x").to_csv(), again.to_csv(index=False)):
        data = load(text)
        np.testing.assert_array_equal(data.X, frame.to_numpy()[:, :2])
        assert "The first column has no name and was left out as an index." in data.notes
    named = load(frame.rename_axis("id").add_prefix("x").to_csv()) if index == [0, 1, 2, 3] else None
    assert (
        named is None
        or "The feature column 'id' has another whole number in each row; is it an index? drop='id' leaves it out."
        in named.notes
    )


TABLE = "id,age,when,income,y\nu7,1,2020-01-01,5,1.5\nu3,2,2020-01-02,6,2.5\nu9,4,2020-01-03,9,3.5\n"


@pytest.mark.parametrize("drop", [["id", "when"], "id,when", (0, "when"), [2, 0], ["when , id"]], ids=str)
def test_columns_that_drop_names_are_left_out(load, drop):
    """They may hold words, which features may not."""
    data = load(TABLE, drop=drop)
    np.testing.assert_array_equal(data.X, [[1, 5], [2, 6], [4, 9]])
    np.testing.assert_array_equal(data.Y, [1.5, 2.5, 3.5])
    assert "Left out, as drop says: column 'id', column 'when'." in data.notes
    refused(load, TABLE, "column 'id' holds words", "drop='id'")


def test_a_column_that_cannot_be_dropped_is_named(load):
    refused(load, TABLE, "drop='whem' is no column", "did you mean 'when'?", drop="whem")
    refused(load, TABLE, "drop leaves out column 'y'", "is the target", drop=["id", "y"])
    refused(load, TABLE, "drop=9", "has 5 columns", drop=9)
    refused(load, TABLE, "drop must be a name, a position from 0 on, or a list", drop=[None])
    refused(load, "1,2,3\n4,5,6\n", "has no header", drop="id", header="no")
    refused(load, "a,b,y\n1,2,3\n4,5,6\n", "has no feature beside", drop="a,b")
    refused(load, 'b,"b",y\n1,2,3\n4,5,6\n', "the name of 2 columns", drop="b")


def test_a_name_with_a_comma_is_one_name(load):
    data = load('"last, first",x,y\nann,1,2\nbob,3,4\n', drop="last, first")
    np.testing.assert_array_equal(data.X, [[1], [3]])


def test_columns_of_an_array_are_dropped_by_position(tmp_path):
    path = tmp_path / "data.npy"
    np.save(path, np.arange(12.0).reshape(3, 4))
    data = DATASETS.get("file")(path=str(path), drop=[0, -2]).data()
    np.testing.assert_array_equal(data.X, [[1], [5], [9]])
    assert "Left out, as drop says: columns 0, 2 (counted from 0)." in data.notes
    for drop, words in (("id", "without names"), (3, "the target"), ([0, 1, 2], "all features"), (7, "4 columns")):
        with pytest.raises(cnn.InputError, match=words):
            DATASETS.get("file")(path=str(path), drop=drop).data()
    np.savez(tmp_path / "data.npz", X=np.ones((2, 2)), Y=np.ones(2))
    with pytest.raises(cnn.InputError, match="drop='id' names columns of a table"):
        DATASETS.get("file")(path=str(tmp_path / "data.npz"), drop="id").data()


@pytest.mark.parametrize(
    ("first", "separator"), [("sep=;", ";"), ('"sep=;"', ";"), ("SEP=,", ","), ("sep=\t", "\t"), ("sep=|", "|")]
)
def test_a_first_line_of_excel_names_the_separator(load, first, separator):
    rows = ["a", "b", "y"], ["1", "2", "3"], ["4", "5", "7"]
    text = "\r\n".join([first, *(separator.join(row) for row in rows)]) + "\r\n"
    data = load(text)
    np.testing.assert_array_equal(data.X, [[1, 2], [4, 5]])
    assert f"The first line, sep={separator}, names the separator." in data.notes
    assert any(note.startswith("Line 2 was read as the header: a,b,y") for note in data.notes)
    refused(load, text.replace("7", "7" + separator), "line 4 has 4 fields where line 2 has 3")


def test_a_column_called_sep_is_a_column(load):
    data = load("sep;y\n1;2\n3;4\n")
    np.testing.assert_array_equal(data.X, [[1], [3]])


def test_values_without_a_name_are_no_index(load):
    refused(load, ",b,c\n1.5,2,3\n1.5,4,5\n", "the first column has no name, and its values are no index", "'1.5'")


# -- lines, separators and numbers ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("rooms,area,price\n3,120,250,000\n", ("line 2 has 4 fields where line 1 has 3", "250000 for 250,000")),
        ("rooms,area,price\n\n\n3,120,2\n3,120,250,000\n", ("line 5 has 4 fields", "3,120,250,000")),
        ("x,z\n1,5,2,5\n2,5,3,5\n", ("line 2 has 4 fields where line 1 has 2", "1.5 for 1,5")),
        ("a,b,c\n1,2,3\n4,5\n", ("line 3 has 2 fields where line 1 has 3: 4,5",)),
        ("x,y\n1,2,\n3,4,\n", ("line 2 has 3 fields where line 1 has 2", "ends in a separator")),
        ("a;b\n1;2;3\n4;5\n", ("line 2 has 3 fields",)),
        ("1 2 3\n4 5 6\n7 8\n", ("line 3 has 2 fields where line 1 has 3: 7 8",)),
        ('a,b\n1,2\n3,"4\n5,6\n', ("from line 3 on",)),
    ],
)
def test_lines_of_another_length_are_refused(load, content, words):
    refused(load, content, *words)


@pytest.mark.parametrize(
    ("content", "parameters"),
    [
        ("x,y\n1.5,2\n3.25,4\n", {}),
        ("x;y\n1,5;2\n3,25;4\n", {}),
        ("x\ty\n1.5\t2\n3.25\t4\n", {"name": "data.tsv"}),
        ("x\ty\n1,5\t2\n3,25\t4\n", {"name": "data.tsv"}),
        ("  x   y\n 1.5   2.0\n3.25\t4e0 \n", {"name": "data.txt"}),
        ('"x","y"\n"1,5","2"\n"3,25","4"\n', {}),
        ("x,y,\n1.5,2,\n3.25,4,\n", {}),
        ("x, y\n1.5, 2\n\n3.25, 4\n   \n", {}),
        ("x;y\r\n1.5;2\r\n3.25;4\r\n", {"separator": "semicolon"}),
        ("x,y\n1.5,2\n3.25,4\n".encode("utf-16"), {}),
        (b"\xef\xbb\xbfx,y\n1.5,2\n3.25,4\n", {"target": "y"}),
    ],
)
def test_separators_and_decimal_signs(load, content, parameters):
    data = load(content, **parameters)
    np.testing.assert_array_equal(data.X, [[1.5], [3.25]])
    np.testing.assert_array_equal(data.Y, [2, 4])


def test_separators_that_both_fit_are_told_apart(load):
    # An empty cell in each line of a table with tabs, which blanks would swallow.
    refused(load, "1\t\t3\n\t5\t6\n7\t8\t\n", "column 0 (counted from 0) is empty in 1 rows, first in line 2")
    for mark in ("\t", ";"):
        data = load(f"1,5{mark}a\n2,5{mark}b\n3,5{mark}a\n")
        np.testing.assert_array_equal(data.X, [[1.5], [2.5], [3.5]])
        assert data.classes == ("a", "b")
    blanks = "1,5 a\n2,5 b\n3,5 a\n"
    refused(load, blanks, "columns may be separated by commas or by blanks: 1,5 a; give separator=comma")
    np.testing.assert_array_equal(load(blanks, separator="space").X, [[1.5], [2.5], [3.5]])
    assert load("1,new york\n2,los angeles\n3,new york\n").classes == ("los angeles", "new york")


def test_commas_that_may_separate_thousands_are_asked(load):
    text = "x;y\n1,500;2\n12,250;4\n"
    refused(load, text, "column 'x' holds '1,500', whose comma may be a decimal sign or separate thousands")
    np.testing.assert_array_equal(load(text, decimal="comma").X, [[1.5], [12.25]])
    refused(load, text, "column 'x' is not a number in line 2: '1,500'", decimal="point")
    alike = "in line 3, where commas are decimal signs: write all numbers of the file alike"
    refused(load, "x;y\n1,5;2\n2.5;4\n", "column 'x' has '2.5'", alike)
    refused(load, "x;y\n1,5;2\n2,5;1.200\n", "column 'y' has '1.200'", alike)


@pytest.mark.parametrize(
    ("content", "parameters", "words"),
    [
        ("a,b\n1,2\n3,4\n", {"target": "c"}, "target='c' is no column of"),
        ("area,b\n1,2\n3,4\n", {"target": "aria"}, "did you mean 'area'"),
        ("a,b\n1,2\n3,4\n", {"target": 7}, "has 2 columns"),
        ("1,2\n3,4.5\n", {"target": "price"}, "has no header; give a position, -1 for the last column"),
        ("a,b\n1,2\n3,4\n", {"target": 1.0}, "target must be a name or a position from 0 on, got 1.0"),
        ("a,a,b\n1,2,3\n4,5,6\n", {"target": "a"}, "is the name of 2 columns"),
        ("a,b\n1,2\nx,4\n", {}, "column 'a' is not a number in line 3: 'x'"),
        ("a,b\n1,2\n\n\nx,4\n", {}, "column 'a' is not a number in line 5: 'x'"),
        ("a,b\n1,2\n1_0,4\n", {}, "column 'a' is not a number in line 3: '1_0'"),
        ("a,b\n1,2\ninf,4\n", {}, "column 'a' is not a number in line 3: 'inf'"),
        ("a,b\n1,2\n,4\n", {}, "column 'a' is empty in 1 rows, first in line 3"),
        ("a,b\n1,2\nNA,4\n", {}, "column 'a' is missing ('NA') in 1 rows, first in line 3"),
        ("a,b\n1,2\n3,NA\n4,5\n", {}, "column 'b' is missing ('NA') in 1 rows, first in line 3"),
        ("a,b\n1,u\n2,\n3,v\n", {}, "column 'b' is empty in 1 rows, first in line 3"),
        ("kind,b\nu,1\nv,2\n", {}, "column 'kind' holds words, such as 'u' in line 2, and features must be numbers"),
        ("kind,b\nu,1\nv,2\n", {}, "pd.get_dummies(pd.read_csv(...), columns=['kind'], dtype=float)"),
        ("a,b\n1,u\n2,v\n", {"targets": "values"}, "the target holds words such as 'u'"),
        (
            "a,b\n1,5\n2,v\n3,7\n",
            {},
            "holds numbers such as '5' and words such as 'v'; give targets=one_hot",
        ),
        ("a,b\n1,u\n2,u\n", {"targets": "one_hot"}, "needs at least 2 classes, the target has 1: 'u'"),
        ("a,b\n1,1\n2,2\n3,3\n", {"targets": "binary"}, "needs exactly 2 classes, the target has 3: 1, 2, 3"),
        ("a\n1\n2\n", {}, "at least 2 of each"),
        ("", {}, "no readable CSV"),
        (b"a,b\n1,\xe9\n", {}, "not text in UTF-8, because of the byte 0xe9 in line 2"),
        (b"a,b\n1,\x002\n", {}, "is no text file"),
        ("a,b\n1,2\n3,4\n", {"features": "X"}, "names an array of an .npz file"),
        ("a,b\n1,2\n3,4\n", {"layout": "image"}, "layout=image needs samples of the shape"),
    ],
)
def test_bad_tables_are_explained(load, content, parameters, words):
    refused(load, content, words, **parameters)


def test_words_for_missing_are_classes_among_words(load):
    data = load("x,kind\n1,None\n2,NA\n3,null\n4,NA\n5,a\n")
    assert data.classes == ("NA", "None", "a", "null")
    np.testing.assert_array_equal(data.Y.argmax(axis=1), [1, 0, 3, 0, 2])
    assert "The target's words 'NA', 'None', 'null' were taken as classes, not as missing." in data.notes
    assert load("x,kind\n1,nan\n2,None\n").classes == ("None", "nan")
    assert load("x,kind\n1,5\n2,v\n3,5\n", targets="one_hot").classes == ("5", "v")


@pytest.mark.parametrize("loss", ["cross_entropy", "logistic", "squared"])
def test_two_classes_under_any_loss(tmp_path, loss):
    path = tmp_path / "data.csv"
    path.write_text("x,kind\n1,yes\n2,no\n3,no\n5,yes\n")
    problem = cnn.make_problem("file", path=str(path), loss=loss)
    assert problem.classes == ("no", "yes")
    signs = np.array([1.0, -1.0, -1.0, 1.0])
    expected = np.column_stack([signs < 0, signs > 0]) if loss == "cross_entropy" else signs[:, None]
    np.testing.assert_array_equal(problem.Y, expected)
    assert problem.with_beta(1.0).classes == problem.classes


@pytest.mark.slow
def test_a_text_is_read_or_refused(load):
    draw = np.random.default_rng(0)
    cells = ["1", "2.5", "-3e2", "7", "4", "0.5", "2020", "a", "NA", "", '"', "#1", "1,5"]
    marks = [",", ";", "\t", " ", "\n", '"', "\n\n"]
    read = refusals = 0
    for trial in range(300):
        width, mark = int(draw.integers(2, 4)), str(draw.choice(marks[:4]))
        share = 6 if trial % 3 else len(cells)  # two thirds of the tables are numbers
        text = "\n".join(mark.join(draw.choice(cells[:share], width)) for _ in range(4))
        if trial % 5 == 0:
            place = int(draw.integers(len(text)))
            text = text[:place] + str(draw.choice(marks)) + text[place + 1 :]
        try:
            data = load(text)
        except cnn.InputError:
            refusals += 1
        else:
            read += 1
            assert len(data.X) == len(data.Y) == 4 - any("as the header" in note for note in data.notes)
            assert np.isfinite(data.X).all()
    assert min(read, refusals) >= 50


def test_classes_are_in_the_order_of_numbers(load):
    data = load("x,y\n1,10\n2,9\n3,10\n4,100\n", targets="one_hot")
    assert data.classes == (9, 10, 100)
    np.testing.assert_array_equal(data.Y.argmax(axis=1), [1, 0, 1, 2])


# -- a table of houses ---------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "houses.csv"
    rows = ["rooms,area,price,kind"]
    rows += [f"{i % 5},{20 + i},{3 * i + 0.5},{'flat' if i % 2 else 'house'}" for i in range(12)]
    path.write_text("\n".join(rows) + "\n")
    return path


def drop_last_column(path):
    path.write_text("\n".join(line.rsplit(",", 1)[0] for line in path.read_text().splitlines()))
    return path


def test_csv_regression_and_classes(table):
    classes = DATASETS.get("file")(path=str(table), target="kind", targets="binary").data()
    np.testing.assert_array_equal(classes.Y[:2, 0], [1.0, -1.0])  # house, flat: the last in order is +1
    assert classes.defaults["loss"] == "logistic"
    numbers = DATASETS.get("file")(path=str(drop_last_column(table)), target="price").data()
    np.testing.assert_array_equal(numbers.X[:, 1], 20 + np.arange(12))
    np.testing.assert_array_equal(numbers.Y, 3 * np.arange(12) + 0.5)
    assert cnn.make_problem("file", path=str(table), beta_fraction=0.1).scope == "complete"


def test_npz(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, X=np.eye(3, dtype=np.float32), Y=np.arange(3), labels=np.array([0, 1, 1]))
    assert DATASETS.get("file")(path=str(path)).data().X.dtype == np.float64
    named = DATASETS.get("file")(path=str(path), target="labels", targets="one_hot").data()
    assert named.Y.shape == (3, 2)
    with pytest.raises(cnn.InputError, match=r"target='Z'.*holds the arrays X, Y, labels"):
        DATASETS.get("file")(path=str(path), target="Z").data()


def test_file_changes_are_noticed(table):
    first = DATASETS.get("file")(path=str(table)).fingerprint()
    drop_last_column(table)
    assert DATASETS.get("file")(path=str(table)).fingerprint() != first


def test_bad_paths(tmp_path):
    for path, words in (
        (None, "needs a path"),
        ("nowhere.csv", "no file 'nowhere.csv'"),
        (str(tmp_path), "there is no file"),
        (__file__, "must end in .csv, .data, .txt, .tsv, .npz, .npy"),
    ):
        with pytest.raises(cnn.InputError, match=words):
            DATASETS.get("file")(path=path).data()
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK nonsense")
    with pytest.raises(cnn.InputError, match="is not an NPZ file, or is damaged"):
        DATASETS.get("file")(path=str(broken)).data()
    np.savez(broken, X=np.array([[1, "a"], [None, 2]], dtype=object), Y=np.zeros(2))
    with pytest.raises(cnn.InputError, match="holds Python objects") as caught:
        DATASETS.get("file")(path=str(broken)).data()
    assert "pickle" not in str(caught.value)


# -- arrays --------------------------------------------------------------------------------------------------


IMAGES = RNG.integers(0, 256, (50, 28, 28), dtype=np.uint8)
DIGITS = (np.arange(50) % 10).astype(np.uint8)


def arrays(path, **named):
    np.savez(path, **named)
    return lambda **parameters: DATASETS.get("file")(path=str(path), **parameters).data()


def test_images_in_an_npz_file(tmp_path):
    load = arrays(tmp_path / "mnist.npz", x_train=IMAGES, y_train=DIGITS, x_test=IMAGES[:5], y_test=DIGITS[:5, None])
    data = load(targets="one_hot")
    np.testing.assert_array_equal(data.X, IMAGES.reshape(50, 784))
    np.testing.assert_array_equal(data.Y, np.eye(10)[DIGITS])
    assert data.classes == tuple(range(10))
    assert data.notes == (
        "x_train (50 x 28 x 28 of uint8) and y_train (50 of uint8) were read.",
        "x_test, y_test were not read (features=x_test,target=y_test reads these).",
        "The features (uint8, 0 to 255) were converted to float64 as they are (scale=255 would divide them).",
        "A sample of 28 x 28 is a row of 784 features.",
        "The target has 10 classes, in the order of the outputs: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9.",
    )
    test = load(features="x_test", target="y_test", targets="one_hot", scale=255, layout="image")
    np.testing.assert_array_equal(test.X, IMAGES[:5, None] / 255)
    np.testing.assert_array_equal(test.Y, np.eye(5))
    problem = cnn.make_problem(
        "file", path=str(tmp_path / "mnist.npz"), layout="image", architecture="cnn[patch=7,stride=7]", patterns=3,
        targets="one_hot",
    )  # fmt: skip
    assert (problem.X.shape, problem.c) == ((50, 1, 28, 28), 10)


@pytest.mark.parametrize("names", [("X", "y"), ("data", "target"), ("images", "labels"), ("arr_0", "arr_1")])
def test_arrays_are_found_by_usual_names(tmp_path, names):
    data = arrays(tmp_path / "a.npz", **{names[0]: np.eye(3), names[1]: np.arange(3), "more": np.ones(2)})()
    np.testing.assert_array_equal(data.Y, np.arange(3))
    assert "more was not read." in data.notes


def test_arrays_that_are_not_clear_are_listed(tmp_path):
    X, y = np.eye(4), np.arange(4)
    for named, words in (
        ({"a": X, "b": y}, "holds the arrays a, b; its arrays have no usual names"),
        ({"data": X, "target": y, "labels": y}, "holds the arrays data, target, labels; several of its arrays"),
        ({"X": X, "Y": y, "x_train": X, "y_train": y}, "several of its arrays may be meant"),
    ):
        load = arrays(tmp_path / "a.npz", **named)
        with pytest.raises(cnn.InputError) as caught:
            load()
        assert words in str(caught.value)
        assert "features=NAME,target=NAME" in str(caught.value)
    assert load(features="X", target="y_train").X.shape == (4, 4)
    assert arrays(tmp_path / "b.npz", data=X, target=y, labels=y)(target="labels").Y.shape == (4,)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [(["b", "a", "b", "b"], ("a", "b")), ([True, False] * 2, (False, True)), (["a", "b", "c", "a"], ("a", "b", "c"))],
)
def test_labels_in_arrays(tmp_path, labels, classes):
    data = arrays(tmp_path / "a.npz", X=np.eye(4), Y=np.array(labels))()
    assert data.classes == classes
    assert data.defaults["loss"] == ("logistic" if len(classes) == 2 else "cross_entropy")


def test_channels_come_first(tmp_path):
    pictures = RNG.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    for stored in (pictures, pictures.transpose(0, 3, 1, 2)):
        data = arrays(tmp_path / "a.npz", images=stored, labels=np.arange(6) % 2)(layout="image")
        np.testing.assert_array_equal(data.X, pictures.transpose(0, 3, 1, 2))
    tokens = arrays(tmp_path / "a.npz", X=pictures[..., 0], Y=np.arange(6.0))(layout="tokens")
    assert tokens.X.shape == (6, 8, 8)


def test_a_single_array_is_a_table(tmp_path):
    table = RNG.standard_normal((6, 3))
    np.save(tmp_path / "a.npy", table)
    file = DATASETS.get("file")
    data = file(path=str(tmp_path / "a.npy")).data()
    np.testing.assert_array_equal(np.column_stack([data.X, data.Y]), table)
    assert data.notes == ("The array (6 x 3 of float64) was read; the last column is the target.",)
    np.testing.assert_array_equal(file(path=str(tmp_path / "a.npy"), target=0).data().Y, table[:, 0])
    with pytest.raises(cnn.InputError, match=r"has 3 columns without names; give a position"):
        file(path=str(tmp_path / "a.npy"), target="price").data()
    for array in (IMAGES, np.arange(5), np.array([["a", "b"]])):
        np.save(tmp_path / "b.npy", array)
        with pytest.raises(cnn.InputError, match=r"A file that stands alone must be a numeric table.*np\.savez"):
            file(path=str(tmp_path / "b.npy")).data()


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_damaged_arrays_are_refused(tmp_path, suffix):
    whole, damaged = tmp_path / f"whole{suffix}", tmp_path / f"damaged{suffix}"
    if suffix == ".npz":
        np.savez(whole, X=np.ones((40, 3)), Y=np.arange(40.0))
    else:
        np.save(whole, np.ones((40, 3)))
    content = whole.read_bytes()
    # A header may claim any shape.
    claims = content.replace(b"(40, 3), }" + 8 * b" ", b"(4000000000, 3), }", 1)
    assert len(claims) == len(content)
    assert claims != content
    for changed in (content[: len(content) // 2], content.replace(b"(40, 3)", b"(9**9,)"), claims, b"", b"PK"):
        damaged.write_bytes(changed)
        with pytest.raises(cnn.InputError, match=r"damaged|no readable file|is not an NPZ file"):
            DATASETS.get("file")(path=str(damaged)).data()

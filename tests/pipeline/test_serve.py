"""`python -m pipeline.serve`: photos in, the best classes out, and nothing else."""

import contextlib
import http.client
import io
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import zlib

import numpy as np
import pytest
from PIL import Image

from common import files
from common.errors import UserError
from pipeline.publish import PublishConfig, publish
from pipeline.serving import photo
from pipeline.serving.export import find_export
from pipeline.serving.server import TryServer
from tests.pipeline.browser import contrast, look_like, open_browser, overflow
from tests.pipeline.report_pages import HOSTILE

pytest_plugins = ["tests.storage_emulator"]

ROOT = pathlib.Path(__file__).parents[2]
LABELS = ("red", HOSTILE, "blue", "fourth", "fifth", "sixth", "seventh")
TEXTS = ("Red <b>thing</b>", "Green & co", "Blue", *LABELS[3:])
SHARPNESS = 8.0
OTHERS = (-1.0, -2.0, -3.0, -4.0)  # logits of the classes that are no colour
MAX_BYTES = 100_000


def write_saved_model(directory, labels=LABELS, signature="serving_jpeg"):
    """A model by TensorFlow alone that tells which colour a photo has most of."""
    import tensorflow as tf

    asset = directory.parent / "labels.txt"
    asset.write_text("".join(f"{label}\n" for label in labels))

    class Colors(tf.Module):
        def __init__(self):
            super().__init__()
            self.labels = tf.saved_model.Asset(str(asset))

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="jpeg")])
        def serve(self, jpeg):
            def logits_of(content):
                pixels = tf.cast(tf.io.decode_jpeg(content, channels=3), tf.float32) / 255.0
                return tf.concat([SHARPNESS * tf.reduce_mean(pixels, [0, 1]), OTHERS], 0)

            logits = tf.map_fn(logits_of, jpeg, fn_output_signature=tf.TensorSpec([7]))
            return {"logits": logits, "probabilities": tf.nn.softmax(logits)}

    module = Colors()
    tf.saved_model.save(module, str(directory), signatures={signature: module.serve})


@pytest.fixture(scope="module")
def export_dir(tmp_path_factory):
    """An export of that model, with human names and hostile ones."""
    directory = tmp_path_factory.mktemp("served") / "export"
    directory.mkdir()
    write_saved_model(directory / "saved_model")
    config = {"name": "mobilenet_v1", "width_multiplier": 0.25, "input_shape": [32, 32, 3]}
    record = {"config": config, "classes": LABELS}
    (directory / "saved_model" / "model.json").write_text(json.dumps(record))
    summary = {"metrics": {"top_1": 0.75, "num_examples": 12}, "class_texts": TEXTS}
    (directory / "export.json").write_text(json.dumps(summary))
    return directory


def classifier_of(directory, class_names=""):
    from pipeline.serving.classifier import Classifier

    found = find_export(str(directory), "latest")
    return Classifier.open(found.saved_model, found, class_names)


@pytest.fixture(scope="module")
def server(export_dir):
    """The server in a thread of this process."""
    from pipeline.serving.page import draw_page

    classifier = classifier_of(export_dir)
    pages = draw_page(classifier, MAX_BYTES / 1e6)
    with TryServer(("127.0.0.1", 0), classifier, pages, max_bytes=MAX_BYTES) as server:
        thread = threading.Thread(target=server.serve_until_idle)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def encoded(pixels, kind="JPEG", **settings):
    image = pixels if isinstance(pixels, Image.Image) else Image.new("RGB", (20, 10), pixels)
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def decoded(content):
    return np.asarray(Image.open(io.BytesIO(content)), np.float64)


def ask(server, method="POST", path="/predict", body=None, **headers):
    """Status, headers and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    with contextlib.closing(connection):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def softmax_of(rgb):
    """The model's probabilities for a photo of that mean colour, 0 to 255."""
    logits = np.array([*(SHARPNESS * np.asarray(rgb) / 255), *OTHERS])
    return np.exp(logits) / np.exp(logits).sum()


def test_the_five_best_classes_are_answered_with_names_and_probabilities(server):
    jpeg = encoded((30, 60, 220), quality=95)
    status, headers, body = ask(server, body=jpeg)
    assert (status, headers["Content-Type"]) == (200, "application/json")
    answer = json.loads(body)
    expected = softmax_of(decoded(jpeg).mean((0, 1)))
    order = np.argsort(-expected)[:5]
    assert [row["label"] for row in answer["predictions"]] == [LABELS[i] for i in order]
    assert [row["name"] for row in answer["predictions"]] == [TEXTS[i] for i in order]
    found = [row["probability"] for row in answer["predictions"]]
    np.testing.assert_allclose(found, expected[order], rtol=1e-4)
    assert 0 < answer["milliseconds"] < 60_000


@pytest.mark.parametrize(
    "content",
    [
        encoded((10, 20, 240), "PNG"),
        encoded((10, 20, 240), "WEBP"),
        encoded((10, 20, 240), "BMP"),
        encoded(Image.new("RGB", (20, 10), (10, 20, 240)).convert("P"), "GIF"),
        encoded(Image.new("RGB", (20, 10), (10, 20, 240)).convert("CMYK"), "JPEG"),
    ],
    ids=["PNG", "WebP", "BMP", "GIF", "CMYK"],
)
def test_photos_of_other_formats_are_taken(server, content):
    status, _, body = ask(server, body=content)
    assert status == 200
    best = json.loads(body)["predictions"][0]
    assert best["label"] == "blue"
    assert best["probability"] == pytest.approx(softmax_of((10, 20, 240))[2], abs=0.02)


def test_an_upright_jpeg_goes_to_the_model_as_it_is():
    for image in (Image.new("RGB", (9, 7), "red"), Image.new("L", (9, 7), 80)):
        content = encoded(image) + b"what other programs add"
        assert photo.to_jpeg(content) is content


def test_a_photo_is_turned_as_people_see_it():
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :16] = (220, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    seen = decoded(photo.to_jpeg(encoded(Image.fromarray(pixels), exif=exif, quality=95)))
    assert np.abs(seen - np.rot90(pixels, -1)).mean() < 3


def test_transparent_parts_are_white():
    image = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    assert decoded(photo.to_jpeg(encoded(image, "PNG"))).min() > 250


def png_that_says(side):
    """A PNG of a few bytes whose header names that many pixels a side."""
    content = bytearray(encoded("white", "PNG"))
    content[16:24] = side.to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "nothing was sent"),
        (b"GET / HTTP/1.1\r\n\r\n", "no picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "no picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture"),
        (encoded("red", quality=95)[:-200], "no picture"),
        (encoded("red", "PNG")[:40], "no picture"),
        (encoded("red", "TIFF"), "no picture"),
        (b"\xff\xd8\xff\xe0" + bytes(range(256)) * 8, "no picture"),
        (png_that_says(60_000), "megapixels"),
        (png_that_says(9_000), "megapixels"),
    ],
    ids=["empty", "text", "SVG", "EPS", "cut JPEG", "cut PNG", "TIFF", "noise", "bomb", "large"],
)
def test_hostile_uploads_are_answered_by_400_and_one_line(server, content, told):
    status, _, body = ask(server, body=content)
    assert status == 400
    assert body.count(b"\n") == 1
    assert told in json.loads(body)["error"]
    assert ask(server, body=encoded("red"))[0] == 200  # and it goes on


def test_a_photo_that_is_too_large_is_refused_however_it_is_sent(server):
    for size in (MAX_BYTES + 1, 3 * MAX_BYTES):
        status, _, body = ask(server, body=bytes(size))
        assert status == 413
        assert "at most 0.1 MB" in json.loads(body)["error"]
    pieces = iter([b"a" * 10])  # of unknown length
    status, _, body = ask(server, body=pieces)
    assert status == 411 and "Content-Length" in json.loads(body)["error"]
    assert ask(server, body=b"", Content_Length="-1")[0] == 411


def test_what_is_not_there_is_404(server):
    for method, path in (("GET", "/predict"), ("GET", "/../etc/passwd"), ("POST", "/")):
        status, _, body = ask(server, method, path, body=None)
        assert status == 404 and "error" in json.loads(body)


def test_other_sites_cannot_have_a_browser_ask(server):
    jpeg, own = encoded("red"), f"127.0.0.1:{server.server_port}"
    assert ask(server, body=jpeg, Origin=f"http://{own}")[0] == 200
    assert ask(server, body=jpeg, Origin="http://evil.example")[0] == 403
    assert ask(server, body=jpeg, Origin="null")[0] == 403
    # A name that its owner has pointed here.
    assert ask(server, body=jpeg, Host="evil.example")[0] == 403
    assert ask(server, "GET", "/", Host="evil.example:8501")[0] == 403
    assert ask(server, "GET", "/", Host=f"localhost:{server.server_port}")[0] == 200


def test_every_answer_forbids_scripts_and_pictures_from_elsewhere(server):
    for method, path in (("GET", "/"), ("HEAD", "/"), ("GET", "/x"), ("POST", "/predict")):
        _, headers, body = ask(server, method, path, body=None)
        policy = headers["Content-Security-Policy"].split("; ")
        assert "default-src 'none'" in policy and "script-src 'self'" in policy
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert not body if method == "HEAD" else body
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as line:
        line.sendall(b"<script>alert(1)</script> / HTTP/1.1\r\n\r\n")
        answer = b"".join(iter(lambda: line.recv(4096), b""))
    assert b" 501 " in answer.splitlines()[0]
    assert answer.splitlines()[-1].startswith(b"501 Unsupported method ('&lt;script")
    assert b"Content-Type: text/plain" in answer and b"default-src 'none'" in answer


def test_class_names_of_a_file_come_first(export_dir, tmp_path):
    (tmp_path / "names.txt").write_text("blue\tthe sea\n")
    best = classifier_of(export_dir, str(tmp_path / "names.txt")).best(encoded("blue"))[0]
    assert (best.label, best.name) == ("blue", "the sea")


def test_a_saved_model_alone_is_served_by_its_labels(tmp_path):
    write_saved_model(tmp_path / "model", ("n01440764", *LABELS[1:]))
    best = classifier_of(tmp_path / "model").best(encoded("red"), count=1)
    assert [(answer.label, answer.name) for answer in best] == [("n01440764", "tench, Tinca tinca")]


def test_what_cannot_be_served_is_one_clear_line(tmp_path):
    (tmp_path / "empty").mkdir()
    for name, told in (("no", "is no directory"), ("empty", "holds no SavedModel")):
        with pytest.raises(UserError, match=told):
            find_export(str(tmp_path / name), "latest")
    write_saved_model(tmp_path / "other", signature="serving_default")
    write_saved_model(tmp_path / "few", labels=LABELS[:3])
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "saved_model.pb").write_bytes(b"\x08\x01 no protocol buffer")
    (tmp_path / "few" / "model.json").write_text('{"classes": 7, "config": []}')
    for name, told in (
        ("other", r"has no signature serving_jpeg\(jpeg\) that gives probabilities"),
        ("few", "has 7 outputs, but 3 labels"),
        ("bad", "cannot be loaded"),
    ):
        with pytest.raises(UserError, match=told) as error:
            classifier_of(tmp_path / name)
        assert "\n" not in str(error.value)


def test_a_saved_model_that_writes_a_file_is_not_served(tmp_path):
    import tensorflow as tf

    escaped = tmp_path / "escaped"

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="jpeg")])
    def hostile(jpeg):
        tf.io.write_file(str(escaped), jpeg[0])
        return {"probabilities": tf.ones([tf.size(jpeg), 1])}

    module = tf.Module()
    module.call = hostile
    tf.saved_model.save(module, str(tmp_path / "bad"), signatures={"serving_jpeg": hostile})
    with pytest.raises(UserError, match="bad is not opened: it holds the operation WriteFile"):
        classifier_of(tmp_path / "bad")
    assert not escaped.exists()


@contextlib.contextmanager
def started(export_dir, *flags):
    """The command as a process."""
    words = ["-m", "pipeline.serve", f"--export_dir={export_dir}", "--port=0", *flags]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, *words], cwd=ROOT, **pipes)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def port_of(process):
    """The port at which it says that it serves."""
    line = process.stdout.readline()
    assert line.startswith("try mobilenet_v1 0.25 at http://127.0.0.1:"), process.communicate()
    return int(line.split("127.0.0.1:")[1].split("/")[0])


def test_the_command_ends_cleanly(export_dir):
    idle = "--stop_after_idle=1"
    # How it is asked to end, its flags, and what it says then; all start at once, which is quicker.
    cases = [(signal.SIGTERM, (), "ended"), (signal.SIGINT, (), "ended")]
    cases.append((None, (idle,), "no request for 1 s: ended"))
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(started(export_dir, *flags)) for _, flags, _ in cases]
        for process, (stop, _, told) in zip(processes, cases, strict=True):
            port = port_of(process)
            if stop:
                # Somebody who holds a connection open does not hold the end up.
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
                os.kill(process.pid, stop)
            # Not by communicate(), which would miss what came together with the first line.
            out, err = process.stdout.read(), process.stderr.read()
            process.wait(60)
            assert (process.returncode, out, err) == (0, f"{told}\n", "")
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), timeout=30)


def test_a_port_that_is_taken_is_one_clear_line(server):
    with pytest.raises(UserError, match="cannot be listened at: Address already in use; give"):
        TryServer(("127.0.0.1", server.server_port), None, {}, max_bytes=1)
    with pytest.raises(UserError, match="cannot be listened at"):
        TryServer(("192.0.2.1", 0), None, {}, max_bytes=1)  # an address of nobody's


def test_the_newest_published_version_is_served(good_export, tmp_path):
    publish(PublishConfig(to=str(tmp_path), export_dir=str(good_export), alias=("stable",)))
    saved_model = str(tmp_path / "versions" / "1" / "saved_model")
    for version in ("latest", "stable", "1"):
        assert find_export(str(tmp_path), version).saved_model == saved_model
    with pytest.raises(UserError, match="has no version 2"):
        find_export(str(tmp_path), "2")


def test_an_export_of_the_pipeline_answers_as_it_evaluates(good_export):
    """The signature of the real export, asked by TensorFlow alone, says the same."""
    import tensorflow as tf

    classifier = classifier_of(good_export)
    serve = tf.saved_model.load(str(good_export / "saved_model")).signatures["serving_jpeg"]
    jpeg = encoded(Image.effect_noise((64, 48), 90).convert("RGB"))
    expected = serve(jpeg=tf.constant([jpeg]))["probabilities"].numpy()[0]
    answers = classifier.best(jpeg)
    assert {answer.label for answer in answers} == set(classifier.labels)
    for answer in answers:
        place = classifier.labels.index(answer.label)
        assert answer.probability == pytest.approx(expected[place], rel=1e-5)


@pytest.fixture(scope="module")
def browser():
    with open_browser() as browser:
        yield browser


def shown(browser):
    """(name, probability, width of the bar in percent) of each row, once there are any."""
    from selenium.webdriver.support.ui import WebDriverWait

    def rows(_):
        return browser.execute_script(
            "return document.getElementById('results').ariaBusy === 'false' &&"
            " document.getElementById('photo').naturalWidth > 0 &&"
            " [...document.querySelectorAll('li')].map(row => [row.querySelector('b').textContent,"
            " row.querySelector('span').textContent, row.querySelector('i').style.width])"
        )

    return WebDriverWait(browser, 30).until(rows)


@pytest.fixture
def page(browser, server):
    look_like(browser, 1200)
    browser.get(server.url)
    browser.get_log("browser")
    return browser


def give(page, how, content, kind="image/png"):
    """Has the user drop or paste a file."""
    page.execute_script(
        "const [how, bytes, kind] = arguments;"
        "const files = new DataTransfer();"
        "files.items.add(new File([new Uint8Array(bytes)], 'photo', {type: kind}));"
        "const event = how === 'drop'"
        " ? new DragEvent('drop', {dataTransfer: files, bubbles: true, cancelable: true})"
        " : new ClipboardEvent('paste', {clipboardData: files, bubbles: true});"
        "document.getElementById('drop').dispatchEvent(event);",
        how,
        list(content),
        kind,
    )


def test_a_chosen_photo_is_shown_with_its_five_best_classes(page, tmp_path):
    (tmp_path / "green.png").write_bytes(encoded((20, 230, 60), "PNG"))
    page.find_element("id", "file").send_keys(str(tmp_path / "green.png"))
    rows = shown(page)
    expected = softmax_of((20, 230, 60))
    assert [row[0] for row in rows] == ["Green & co", "Blue", "Red <b>thing</b>", "fourth", "fifth"]
    for (_, told, width), share in zip(rows, np.sort(expected)[::-1], strict=False):
        if share > 0.001:
            assert float(told.split()[0]) == pytest.approx(100 * share, abs=0.3)
            assert float(width.rstrip("%")) == pytest.approx(100 * share, abs=0.3)
    # Names with HTML in them are text, and nothing was fetched or run.
    assert HOSTILE in page.find_element("id", "classes").text
    assert not page.find_elements("css selector", "#classes img, #classes b b")
    assert "answered in" in page.find_element("id", "time").text
    assert page.get_log("browser") == []


@pytest.mark.parametrize("how", ["drop", "paste"])
def test_a_photo_can_be_dropped_and_pasted(page, how):
    give(page, how, encoded("blue", "WEBP"), "image/webp")
    assert shown(page)[0][0] == "Blue"


def test_what_is_wrong_with_a_file_is_told_on_the_page(page):
    from selenium.webdriver.support.ui import WebDriverWait

    error = page.find_element("id", "error")
    give(page, "drop", b"no photo", "text/plain")
    WebDriverWait(page, 30).until(lambda _: "no picture that can be read" in error.text)
    assert not page.find_element("id", "photo").is_displayed()
    give(page, "drop", bytes(MAX_BYTES + 1))
    WebDriverWait(page, 30).until(lambda _: "take one of at most 0.1 MB" in error.text)
    give(page, "drop", encoded("red", "PNG"))
    assert shown(page)[0][0] == "Red <b>thing</b>"
    assert not error.is_displayed()


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (1200, "dark"), (360, "light")])
def test_the_page_can_be_read_on_desk_and_phone_in_light_and_dark(page, width, scheme):
    look_like(page, width, scheme)
    give(page, "drop", encoded("red", "PNG"))
    shown(page)
    assert overflow(page) <= 0
    for selector in ("h1", ".lead", ".answer b", "#time", "li code", "footer"):
        assert contrast(page, selector) >= 4.5, selector


def test_the_server_reads_an_export_in_a_bucket(bucket, storage_proxy, export_dir):
    for name, _ in files.list_tree(str(export_dir)):
        if content := (export_dir / name).read_bytes():
            storage_proxy.put(f"models/mine/{name}", content)
    found = find_export(f"{bucket}/models/mine", "latest")
    assert found.saved_model == f"{bucket}/models/mine/saved_model"
    assert found.summary["metrics"]["top_1"] == 0.75
    from pipeline.serving.classifier import Classifier

    with files.local_copy(found.saved_model) as directory:
        best = Classifier.open(directory, found, "").best(encoded("blue"))[0]
    assert best.name == "Blue"

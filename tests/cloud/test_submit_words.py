"""`python -m pipeline.submit`: names and words that it refuses, or marks, before a job fails."""

import pytest

from .conftest import OFFLINE, TRAIN, words_in

pytest_plugins = ["tests.storage_emulator"]


@pytest.mark.parametrize(
    ("words", "shards"),
    [
        (("--split", "validation"), 128),
        (("--split=validation", "--split", "train"), 1024),
        (("--split=test",), 128),
        ((), 1024),
    ],
)
def test_the_number_of_shards_is_that_of_the_split(words, shards, run):
    more = ("--source", "gs://x/photos", *words)
    done = run("--stage=preprocess", "--experiment=mobilenet_v2", OFFLINE, "--", *more)
    assert done.code == 0
    assert words_in(done.spec)[2] == f"--num_shards={shards}"


@pytest.mark.parametrize(
    ("flag", "values"),
    [
        ("name", ("a/b../../x", "../../escaped", "Größe 1", "Run", "1st", "x\n")),
        ("project", ("P one", "my", "My-project", "my-project-")),
        ("region", ("US-Central1", "us-central1-a", "us", "us-central")),
        ("bucket", ("s3://bkt", "Bücket X", "bkt/some/prefix", "gs://", "Bkt")),
        ("data_dir", ("gs://", "gs:///data", "gs://B/data")),
        ("run_dir", ("gs://",)),
        ("published", ("gs://-a-/b",)),
        ("package_uri", ("gs://bkt",)),
        ("service_account", ("me", "me@", "a b@c.de", "me@host")),
        ("image", ("gcr.io", "us-docker.pkg.dev/p 1/r/im age", "gcr.io/a:", "https://gcr.io/a")),
        ("repository", ("My repo", "a_b", "-a")),
        ("image_tag", ("a b", "-1", "1:2")),
    ],
)
def test_what_no_name_can_be_is_refused_with_what_it_must_look_like(flag, values, run, tmp_path):
    for value in values:
        done = run(*TRAIN, OFFLINE, f"--{flag}={value}")
        assert (done.code, done.text, done.spec) == (2, "", None), value
        (line,) = done.error.splitlines()
        assert f"--{flag}=" in line and " must be " in line, line
    assert not list(tmp_path.rglob("*.yaml"))


def test_names_that_newcomers_copy_and_others_have_are_taken(run):
    told = ("--project=PROJECT", "--region=REGION", "--bucket=BUCKET", "--repository=REPOSITORY")
    assert run(*TRAIN, OFFLINE, *told).code == 0
    taken = (
        *("--project=team-7", "--region=northamerica-northeast1", "--bucket=gs://a.b_c-9/"),
        *("--repository=r", "--image_tag=v1.2_x", "--data_dir=gs://BUCKET/some data/"),
        "--service_account=12-compute@developer.gserviceaccount.com",
    )
    assert run(*TRAIN, OFFLINE, *taken).code == 0
    for image in (
        "REGION-docker.pkg.dev/PROJECT/REPOSITORY/train-gpu:1",
        f"europe-docker.pkg.dev/p/r/a/b_c@sha256:{'0' * 64}",
        "localhost:5000/x",
    ):
        assert run(*TRAIN, OFFLINE, f"--image={image}").code == 0


def test_a_name_has_room_for_the_stage_behind_it(run):
    done = run("--stage=evaluate", OFFLINE, f"--name={'x' * 54}")
    assert done.code == 0
    done = run("--stage=evaluate", OFFLINE, f"--name={'x' * 55}")
    assert done.code == 2
    (line,) = done.error.splitlines()
    assert "with -evaluate behind it at most 63 letters, not 64" in line
    assert run("--stage=evaluate", OFFLINE, f"--name={'x' * 300}").code == 2


def test_with_an_evaluator_the_workers_evaluate_at_the_end_alone(run):
    alone = run(*TRAIN, "--topology=gpu-4x8", OFFLINE)
    assert not any("eval_every" in word for word in words_in(alone.spec))
    assert "600 x 2 x 12,812 images" in alone.text
    done = run(*TRAIN, "--topology=gpu-4x8", "--evaluator", OFFLINE)
    for pool in (0, 1, 3):
        assert words_in(done.spec, pool)[-1] == "--eval_every_epochs=600"
    assert " 1 x 2 x 12,812 images" in done.text
    done = run(*TRAIN, "--topology=gpu-4x8-evaluator", OFFLINE, "--", "--eval_every_epochs=100")
    assert words_in(done.spec)[-2:] == ["--eval_every_epochs=600", "--eval_every_epochs=100"]
    assert " 6 x 2 x 12,812 images" in done.text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((*TRAIN, "--topology=gpu-4x8", "--", "--strategy=mirrored"), "take multi_worker"),
        ((*TRAIN, "--topology=gpu-4x8", "--", "--strategy=default"), "take multi_worker"),
        ((*TRAIN, "--topology=gpu-8", "--", "--strategy=default"), "take mirrored"),
        (("--stage=evaluate", "--name=x", "--", "--strategy=tpu"), "there is no TPU"),
        ((*TRAIN, "--topology=gpu-8", "--evaluator", "--", "--eval_split="), "--eval_split"),
        (("--stage=run", "--experiment=imagenette"), "imagenette would train on the demo's"),
        (("--stage=run", "--experiment=small", "--", "--dataset=photos"), "--dataset=photos is"),
        (
            ("--stage=run", "--experiment=fine-tune", "--", "--dataset", "imagenette"),
            "this recipe starts from a checkpoint: say which, -- --init=gs://...",
        ),
        (("--stage=run", "--", "--init=old/model.ckpt"), "--init=old/model.ckpt is a path on the"),
    ],
)
def test_words_that_do_not_suit_the_job_are_marked(words, told, run):
    done = run(OFFLINE, *words)
    assert (done.code, done.error) == (1, "")
    (line,) = [line for line in done.text.splitlines() if line.startswith("✗")]
    assert told in line


@pytest.mark.parametrize(
    "words",
    [
        ("--experiment=demo-scratch",),
        ("--experiment=imagenette", "--", "--dataset=imagenette"),
        ("--experiment=small", "--", "--dataset=tfds:beans"),
        ("--experiment=small", "--", "--dataset=demo"),
        ("--experiment=fine-tune", "--", "--dataset=gs://bkt/photos", "--init=/gcs/bkt/v2.ckpt"),
    ],
)
def test_the_whole_line_runs_on_what_it_is_told(words, run):
    done = run("--stage=run", OFFLINE, *words)
    assert (done.code, done.error) == (0, "")
    assert "✗" not in done.text


def test_photos_of_the_whole_line_must_be_there(run, bucket, storage_proxy):
    words = ("--stage=run", "--experiment=small", f"--bucket={bucket}")
    words = (*words, "--", f"--dataset={bucket}/photos")
    done = run(*words)
    assert done.code == 1
    assert f"✗ {bucket}/photos is not there: `gcloud storage cp` makes it" in done.text
    storage_proxy.put("photos/a/1.jpg", b"x")
    assert run(*words).code == 0


def test_each_directory_of_an_evaluation_must_be_in_a_bucket(run):
    more = ("--data_dir=gs://bkt/a,/data/b, c", "--output=e.json")
    done = run("--stage=evaluate", "--name=x", OFFLINE, "--", *more)
    assert done.code == 1
    wrong = [line.split(" is a path")[0] for line in done.text.splitlines() if line[0:1] == "✗"]
    assert wrong == ["✗ --data_dir=/data/b", "✗ --data_dir=c", "✗ --output=e.json"]

#!/usr/bin/env bash
# Builds one split of a data set on Dataflow: what README.md beside this tells, as one command.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: VARIABLE=... launch.sh wait --source=... --output_dir=... [--flag=value ...] [-- --beam_option ...]
       VARIABLE=... launch.sh template --source=... --output_dir=... [--flag=value ...]
       VARIABLE=... launch.sh spec

wait      lists the images here, hands the job over, waits for it, and writes the manifest
template  starts the flex template, which does all of that in the cloud, and does not wait
spec      makes the flex template: writes its description into the bucket

Flags are those of `python -m preprocessing.build_dataset`.

PROJECT, REGION, BUCKET   where; BUCKET without gs://
REPOSITORY, TAG           of the images in Artifact Registry; mobilenet and 1
IMAGE                     of the workers; REGION-docker.pkg.dev/PROJECT/REPOSITORY/dataflow-worker:TAG
TEMPLATE_IMAGE            of the template, for spec; as IMAGE, but dataflow-template
SERVICE_ACCOUNT           of the workers; builder@PROJECT.iam.gserviceaccount.com
SUBNETWORK                regions/REGION/subnetworks/NAME with Private Google Access: workers then
                          have no public addresses
MACHINE_TYPE              n2-standard-4
NUM_WORKERS, MAX_WORKERS  machines at first and at most; 2 and 20
THREADS                   shards that a process writes at once; 2
LAUNCHER_MACHINE_TYPE     the machine that lists, with `template`; n2-standard-4
LAUNCHER_SECONDS          how long it may take for that; 3600
TEMPLATE                  gs://BUCKET/templates/build_dataset.json
JOB_NAME                  build-SPLIT- and the time
PYTHON                    python
DRY_RUN                   1 prints the command and does not run it
TEXT
}

fail() {
  echo "launch.sh: $*" >&2
  exit 2
}

# An empty array is unset to the bash of macOS, hence ${array[@]+"${array[@]}"} below.

# Runs a command, or with DRY_RUN=1 prints it as a shell takes it, an option a line.
run() {
  [[ "${DRY_RUN:-}" == 1 ]] || exec "$@"
  local text word
  text=$(printf '%q' "$1")
  shift
  for word in "$@"; do
    [[ "$word" != --* ]] || text+=$' \\\n '
    text+=" $(printf '%q' "$word")"
  done
  echo "$text"
}

# The flags as parameters of the template, whose names differ where Beam has the same one.
parameters() {
  local joined="" word
  for word in "$@"; do
    [[ "$word" == --*=* ]] || fail "'$word': flags of the build have the form --name=value"
    [[ "$word" != *";"* ]] || fail "'$word': gcloud would take the ';' for the end of the value"
    word="${word#--}"
    joined+="${joined:+;}${word/#labels=/labels_file=}"
  done
  echo "^;^$joined"
}

[[ $# -gt 0 ]] || { usage >&2; exit 2; }
verb="$1"
shift
case "$verb" in
  -h | --help | help) usage; exit 0 ;;
  wait | template | spec) ;;
  *) fail "'$verb': the first word is wait, template or spec (--help tells of them)" ;;
esac

for name in PROJECT REGION BUCKET; do
  [[ -n "${!name:-}" ]] || fail "$name is not set (--help lists the variables)"
done
[[ "$BUCKET" != gs://* ]] || fail "BUCKET=$BUCKET: leave gs:// out"
here=$(dirname "${BASH_SOURCE[0]}")
images="$REGION-docker.pkg.dev/$PROJECT/${REPOSITORY:-mobilenet}"
image="${IMAGE:-$images/dataflow-worker:${TAG:-1}}"
account="${SERVICE_ACCOUNT:-builder@$PROJECT.iam.gserviceaccount.com}"
template="${TEMPLATE:-gs://$BUCKET/templates/build_dataset.json}"
machine="${MACHINE_TYPE:-n2-standard-4}"
threads="${THREADS:-2}"

flags=()
while [[ $# -gt 0 && "$1" != "--" ]]; do
  flags+=("$1")
  shift
done
[[ $# -eq 0 ]] || shift

split=train
before=""
for word in ${flags[@]+"${flags[@]}"}; do
  case "$before" in --split | -split) split="$word" ;; esac
  case "$word" in --split=* | -split=*) split="${word#*=}" ;; esac
  before="$word"
done
default_name="build-$(tr '[:upper:]_' '[:lower:]-' <<<"$split")-$(date -u +%Y%m%d-%H%M%S)"
job="${JOB_NAME:-$default_name}"

case "$verb" in
  wait)
    network=()
    [[ -z "${SUBNETWORK:-}" ]] || network=("--subnetwork=$SUBNETWORK" --no_use_public_ips)
    run "${PYTHON:-python}" -m preprocessing.build_dataset ${flags[@]+"${flags[@]}"} --runner=DataflowRunner -- \
      "--project=$PROJECT" "--region=$REGION" "--job_name=$job" \
      "--temp_location=gs://$BUCKET/tmp" "--sdk_container_image=$image" \
      "--service_account_email=$account" "--machine_type=$machine" \
      "--number_of_worker_harness_threads=$threads" \
      "--num_workers=${NUM_WORKERS:-2}" "--max_num_workers=${MAX_WORKERS:-20}" \
      --autoscaling_algorithm=THROUGHPUT_BASED --labels=purpose=build ${network[@]+"${network[@]}"} "$@"
    ;;
  template)
    [[ $# -eq 0 ]] || fail "options of Beam's own ('$1') are for wait: set variables instead"
    given=$(parameters ${flags[@]+"${flags[@]}"} \
      "--sdk_container_image=$image" "--number_of_worker_harness_threads=$threads") || exit 2
    network=()
    [[ -z "${SUBNETWORK:-}" ]] || network=("--subnetwork=$SUBNETWORK" --disable-public-ips)
    run gcloud dataflow flex-template run "$job" "--project=$PROJECT" "--region=$REGION" \
      "--template-file-gcs-location=$template" "--parameters=$given" \
      "--temp-location=gs://$BUCKET/tmp" "--staging-location=gs://$BUCKET/tmp/staging" \
      "--service-account-email=$account" "--worker-machine-type=$machine" \
      "--num-workers=${NUM_WORKERS:-2}" "--max-workers=${MAX_WORKERS:-20}" \
      "--launcher-machine-type=${LAUNCHER_MACHINE_TYPE:-n2-standard-4}" \
      "--launcher-vm-timeout-secs=${LAUNCHER_SECONDS:-3600}" \
      --additional-user-labels=purpose=build ${network[@]+"${network[@]}"}
    ;;
  spec)
    [[ ${#flags[@]} -eq 0 && $# -eq 0 ]] || fail "spec takes no flags"
    run gcloud dataflow flex-template build "$template" "--project=$PROJECT" \
      "--image=${TEMPLATE_IMAGE:-$images/dataflow-template:${TAG:-1}}" --sdk-language=PYTHON "--metadata-file=$here/metadata.json"
    ;;
esac

#!/usr/bin/env bash
# Runs a set of Jobs in the order of its files: all of one number, then all of the next.
#
#   infra/kubernetes/apply.sh DIRECTORY [OPTION of kubectl, such as --namespace=NAME] ...
#
# DIRECTORY is one that `python -m pipeline.manifests --format=kubernetes` wrote. A Job that has
# finished is not run again, so the same command goes on after it was interrupted; the Jobs
# themselves do not notice an interruption. Exit code 1: a Job has failed; kubectl's own: it has.
# It runs in bash 3.2, which macOS has.
set -euo pipefail

if [[ $# -eq 0 || $1 == -* || ! -d $1 ]]; then
  echo "usage: $0 DIRECTORY [OPTION of kubectl] ..." >&2
  exit 2
fi
directory=$1
shift
poll_seconds=${POLL_SECONDS:-10}

shopt -s nullglob
manifests=("$directory"/[0-9][0-9]-*.yaml)
if [[ ${#manifests[@]} -eq 0 ]]; then
  echo "$0: there is no 01-*.yaml in $directory: write it by python -m pipeline.manifests" >&2
  exit 2
fi

# Prints whether a Job is Complete or Failed; nothing as long as it is neither.
end_of() {
  kubectl "${@:2}" get "$1" \
    --output=jsonpath='{range .status.conditions[?(@.status=="True")]}{.type}{"\n"}{end}' |
    awk '$0 == "Complete" || $0 == "Failed" { state = $0 } END { print state }'
}

wait_for() {
  local job=$1 state kubectl=(kubectl "${@:2}")
  while true; do
    state=$(end_of "$job" "${@:2}") # alone, so that a kubectl that fails ends the script
    if [[ -n $state ]]; then
      break
    fi
    sleep "$poll_seconds"
  done
  echo "$job: $state"
  if [[ $state == Failed ]]; then
    echo "$0: ${kubectl[*]} logs $job tells why; when that is mended, ${kubectl[*]} delete $job" \
      "and give the same command again" >&2
    exit 1
  fi
}

level=
for first in "${manifests[@]}"; do
  name=${first##*/}
  if [[ ${name:0:2} == "$level" ]]; then
    continue
  fi
  level=${name:0:2}
  jobs=()
  for manifest in "$directory/$level"-*.yaml; do
    applied=$(kubectl "$@" apply --filename="$manifest" --output=name)
    while read -r object; do
      echo "$object: applied"
      if [[ $object == job.batch/* ]]; then
        jobs+=("$object")
      fi
    done <<<"$applied"
  done
  for job in ${jobs[@]+"${jobs[@]}"}; do
    wait_for "$job" "$@"
  done
done

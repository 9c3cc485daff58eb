#!/usr/bin/env bash
# Runs a set of Jobs in the order of its files: all of one number, then all of the next.
#
#   infra/kubernetes/apply.sh DIRECTORY [OPTION of kubectl, such as --namespace=NAME] ...
#
# DIRECTORY is one that `python -m pipeline.manifests --format=kubernetes` wrote. A Job that has
# finished is not run again, so the same command goes on after it was interrupted; the Jobs
# themselves do not notice an interruption. Exit code 1: a Job has failed.
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
    awk '$0 == "Complete" || $0 == "Failed" { print; exit }'
}

wait_for() {
  local job=$1 state kubectl=(kubectl "${@:2}")
  until state=$(end_of "$job" "${@:2}") && [[ -n $state ]]; do
    sleep "$poll_seconds"
  done
  echo "$job: $state"
  if [[ $state == Failed ]]; then
    echo "$0: ${kubectl[*]} logs $job tells why; when that is mended, ${kubectl[*]} delete $job" \
      "and give the same command again" >&2
    exit 1
  fi
}

levels=()
for manifest in "${manifests[@]}"; do
  name=${manifest##*/}
  if [[ ${#levels[@]} -eq 0 || ${levels[-1]} != "${name:0:2}" ]]; then
    levels+=("${name:0:2}")
  fi
done

for level in "${levels[@]}"; do
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

#!/usr/bin/env bash
# Runs fault cases on a real cluster with the overlay production: breaks something, waits until it is whole again, and asks
# `millrace audit` whether an event was lost or doubled.
#
#     k8s/faults.sh --list
#     k8s/faults.sh --context staging [--namespace millrace] [--timeout 600] CASE... | all
#
# Put load on the topic first: without events nothing can be lost. Never run it where people rely on the data being fresh. It was
# never run on a cluster by those who wrote it; shellcheck has nothing to say of it.
set -o errexit -o nounset -o pipefail

cases=(consumer consumers clickhouse clickhouse-all keeper keeper-quorum broker controller registry rollout cordon)
context='' namespace=millrace timeout_s=600

usage() {
    sed -n '2,/^set /p' "$0" | sed -e '/^set /d' -e 's/^# \{0,1\}//'
}

fail() {
    echo "faults.sh: $*" >&2
    exit 1
}

kube() {
    kubectl --context "$context" --namespace "$namespace" "$@"
}

# Names of the pods with a label, one a line.
pods() {
    kube get pods --selector "$1" --output 'jsonpath={range .items[*]}{.metadata.name}{"\n"}{end}'
}

# How many pods with a label are ready and are not being deleted.
ready() {
    local template='{range .items[*]}{.metadata.deletionTimestamp}{"/"}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}'
    kube get pods --selector "$1" --output "jsonpath=$template" | grep --count '^/True$' || true
}

# await SECONDS WHAT COMMAND...: until the command succeeds.
await() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        ((SECONDS < deadline)) || fail "$what: not within the time"
        sleep 2
    done
}

has_ready() {
    [[ $(ready "$1") -ge $2 ]]
}

# SIGKILL, as near as the API comes to it, of the first N pods with a label; then until as many are ready as were before.
kill_pods() {
    local label=$1 count=$2 before names
    before=$(ready "$label")
    mapfile -t names < <(pods "$label" | head --lines "$count")
    ((${#names[@]} == count)) || fail "there are no $count pods with $label"
    echo "  killing ${names[*]}"
    kube delete pod --grace-period 0 --force --wait=false "${names[@]}" >/dev/null 2>&1
    local name
    for name in "${names[@]}"; do
        kube wait --for=delete "pod/$name" --timeout 30s >/dev/null 2>&1 || true # one of a StatefulSet is there again at once
    done
    local begin=$SECONDS
    await "$timeout_s" "pods with $label" has_ready "$label" "$before"
    echo "  $before pods with $label are ready after $((SECONDS - begin)) s"
}

job_ended() {
    [[ -n $(kube get job "$1" --output 'jsonpath={.status.succeeded}{.status.failed}') ]]
}

# Whether every committed record is a row, a dropped duplicate or a dead letter.
audit() {
    local name
    name="audit-$1-$(date +%s)"
    kube create job "$name" --from=cronjob/audit >/dev/null
    await "$timeout_s" "audit $name" job_ended "$name"
    kube logs "job/$name" | sed 's/^/  /'
    [[ $(kube get job "$name" --output 'jsonpath={.status.succeeded}') == 1 ]] || fail "case $1: the audit found a violation, or could not be done"
    kube delete job "$name" >/dev/null
}

cordoned=''
uncordon() {
    [[ -z $cordoned ]] || kubectl --context "$context" uncordon "$cordoned" || true
    cordoned=''
}
trap uncordon EXIT

run() {
    local by=app.kubernetes.io/name pool=strimzi.io/pool-name
    case $1 in
        consumer) kill_pods "$by=millrace" 1 ;;
        consumers) kill_pods "$by=millrace" "$(pods "$by=millrace" | wc --lines)" ;;
        # The first replica of the configuration is the one that is written to, unless it was away before.
        clickhouse) kill_pods "$by=clickhouse" 1 ;;
        clickhouse-all) kill_pods "$by=clickhouse" 3 ;;
        keeper) kill_pods "$by=keeper" 1 ;;
        keeper-quorum) kill_pods "$by=keeper" 2 ;;
        broker) kill_pods "$pool=broker" 1 ;;
        controller) kill_pods "$pool=controller" 1 ;;
        registry) kill_pods "$by=registry" 2 ;;
        rollout)
            kube rollout restart deployment/millrace
            kube rollout status deployment/millrace --timeout "${timeout_s}s"
            ;;
        cordon)
            cordoned=$(kube get pods --selector "$by=clickhouse" --output 'jsonpath={.items[0].spec.nodeName}')
            local before
            before=$(ready "$by=millrace")
            echo "  draining node $cordoned"
            kubectl --context "$context" cordon "$cordoned"
            # By eviction, so that disruption budgets are kept; only of our own pods.
            kubectl --context "$context" drain "$cordoned" --ignore-daemonsets --delete-emptydir-data \
                --pod-selector "app.kubernetes.io/part-of=millrace" --timeout "${timeout_s}s"
            await "$timeout_s" "consumers elsewhere" has_ready "$by=millrace" "$before"
            uncordon
            await "$timeout_s" "three replicas of ClickHouse" has_ready "$by=clickhouse" 3
            ;;
        *) fail "there is no case $1; --list names them" ;;
    esac
}

chosen=()
while (($# > 0)); do
    case $1 in
        --list) printf '%s\n' "${cases[@]}" && exit 0 ;;
        --help | -h) usage && exit 0 ;;
        --context) context=${2:?--context needs a name} && shift 2 ;;
        --namespace) namespace=${2:?--namespace needs a name} && shift 2 ;;
        --timeout) timeout_s=${2:?--timeout needs seconds} && shift 2 ;;
        all) chosen=("${cases[@]}") && shift ;;
        -*) fail "there is no option $1; --help names them" ;;
        *) chosen+=("$1") && shift ;;
    esac
done
[[ -n $context ]] || fail "name the cluster with --context; what is current might be another one"
((${#chosen[@]} > 0)) || fail "name cases, or all; --list names them"

consumers=$(ready app.kubernetes.io/name=millrace)
((consumers > 0)) || fail "no consumer is ready"
for case in "${chosen[@]}"; do
    echo "== $case"
    run "$case"
    # Ready is a consumer that reads its partitions: whatever the fault was, they have got over it.
    await "$timeout_s" "consumers" has_ready app.kubernetes.io/name=millrace "$consumers"
    audit "$case"
done
echo "${#chosen[@]} passed, 0 failed"

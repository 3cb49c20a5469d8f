# shellcheck shell=bash
# The slice, a queued resource: its state, how it is asked for and given back, and until when it is waited for.
# Part of launch_tpu.sh; its calls go through cloud.sh.

state='' blind=0 met=false
look() { # sets state, as gcloud says it; MISSING where there is no such slice, UNKNOWN where there was no answer
    state=UNKNOWN
    if queue "$look_limit" describe "$name" "${place[@]}" --format='value(state.state)'; then
        state=''
        read -r state <out || true
        complaint="describe gives no state of $name"
        case $state in '' | STATE_UNSPECIFIED) state=UNKNOWN ;; esac
    elif [[ $code -eq 1 && $complaint == *[Nn][Oo][Tt][\ _][Ff][Oo][Uu][Nn][Dd]* ]]; then
        state=MISSING
    fi
    if [ "$state" != UNKNOWN ]; then blind=0 met=true; over unknown; return; fi
    case $(kind) in signin | forbidden | wrong) explain ;; esac # a quota of looks passes
    blind=$((blind + 1))
    # Once there was an answer, what is waited for is worth more than an end; before, something is likely to be wrong.
    $met || [ "$blind" -lt 5 ] || explain
    waits unknown "the state of $name isn't known, and is asked for again: $complaint"
}
seen() { # the state, after as many looks as it takes
    look
    while [ "$state" = UNKNOWN ]; do pause "$poll"; look; done
}

requested=false accepted=false clashes=0 # since the last time that there was none
create() {
    local options=(--accelerator-type "$type" --runtime-version "$runtime" "${place[@]}")
    if [ "$slices" -eq 1 ]; then options+=(--node-id "$name"); else options+=(--node-count "$slices" --node-prefix "$name"); fi
    $spot && options+=(--spot)
    waits creating "creating $name: $slices x $type in $zone"
    requested=true
    if queue "$ask_limit" create "$name" "${options[@]}"; then
        accepted=true clashes=0
        works create
        return
    fi
    if [ "$(kind)" != exists ]; then passes "create"; return; fi
    clashes=$((clashes + 1)) # right after a request that wasn't answered it may not be listed yet
    [ "$clashes" -lt 3 ] || die 1 "create says that $name exists, and describe that it doesn't: most likely there is a TPU VM of that name that was made without a queue" \
        "gcloud said: $complaint" "look: gcloud compute tpus tpu-vm describe $name ${place[*]}" \
        "delete it: gcloud compute tpus tpu-vm delete $name ${place[*]}; or take another NAME"
    say "create says that $name exists, and describe that it doesn't: looking again"
}

lost=0
loses() { # a request that came to nothing, and how; ends after three
    lost=$((lost + 1)) accepted=false
    [ "$lost" -lt 3 ] || die 1 "$name was asked for three times, and each time it came to nothing; at last $1" \
        "try again later, in another zone, as another type, or with --spot; what there is: gcloud compute tpus queued-resources list ${place[*]}"
    say "$name was asked for, and $1; asking again"
}

remove() { # whether it is gone, or on its way
    if queue "$ask_limit" delete "$name" "${place[@]}" --force --quiet || [[ $complaint == *[Nn][Oo][Tt][\ _][Ff][Oo][Uu][Nn][Dd]* ]]; then works delete; return; fi
    passes "delete"
    return 1
}

reason() { # of a request that failed, in gcloud's words, as $complaint; empty where it has none
    if queue "$look_limit" describe "$name" "${place[@]}" --format='value(state.failedData.error.message)'; then
        complaint=$(tr -s '[:space:]' ' ' <out)
    fi
    [ "$code" -eq 0 ] && [ "$complaint" != ' ' ] || complaint=''
}

vanished=0
vanishes() { # ends where that is seen three times: one answer may be wrong
    vanished=$((vanished + 1))
    [ "$vanished" -lt 3 ] || die 1 "$name is $state: somebody has given it back" "$again makes a new one, and goes on with the run"
    say "$name is $state: looking again"
}

ready() { # creates the slice where there is none, and waits for it
    local there=false before='' why
    requested=false accepted=false clashes=0 lost=0 vanished=0
    $dry && { create; return; }
    while :; do
        look
        case $state in UNKNOWN) ;; MISSING) over state ;; *) over creating; [ "$state" = "$before" ] || over state; before=$state ;; esac
        case $state in
            ACTIVE) say "$name is ACTIVE"; vanished=0; return ;;
            UNKNOWN) ;;
            SUSPENDED | FAILED)
                if $requested; then
                    reason
                    case $(kind) in quota | forbidden | signin | wrong) explain ;; esac
                    why="it became $state${complaint:+: $complaint}"
                    [ "$state" = SUSPENDED ] || [ -n "$complaint" ] || why+=', most likely for want of capacity'
                    if [ "$lost" -eq 2 ]; then remove || true; fi # its end is told; the name is free again
                    loses "$why"
                    pause "$(product "$poll" "$lost")"
                else
                    waits state "$name is $state, so it was taken away, or never came: asking for another"
                fi
                there=false requested=false vanished=0 clashes=0
                remove || true
                ;;
            MISSING | DELETING)
                if $there; then
                    vanishes
                elif [ "$state" = DELETING ]; then
                    waits state "$name is $state"
                else
                    ! $accepted || loses "describe doesn't find it"
                    create
                fi
                ;;
            *)
                case $state in CREATING | ACCEPTED | WAITING_FOR_RESOURCES | PROVISIONING) there=true ;; esac # only people delete those
                accepted=false vanished=0 clashes=0
                waits state "$name is $state"
                ;;
        esac
        pause "$poll"
    done
}

gone() { # whether the slice was taken away; ends where somebody has given it back
    look
    case $state in
        SUSPENDING | SUSPENDED | FAILED) say "$name was taken away"; return 0 ;;
        MISSING | DELETING) vanishes ;;
        UNKNOWN) ;;
        *) vanished=0 ;;
    esac
    return 1
}

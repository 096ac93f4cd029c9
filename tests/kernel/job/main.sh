# The job of the emulated machine: agents with the kernel's WireGuard. Says `ok NAME`
# or `FAILED NAME: what was seen`.
# shellcheck shell=dash disable=SC2034,SC2154
# shellcheck source=tests/kernel/job/lab.sh
. /job/lab.sh
# shellcheck source=tests/kernel/job/use.sh
. /job/use.sh
ip link add lan type bridge
ip link set lan up
for subject in "$@"; do
    began=$(now)
    # shellcheck source=/dev/null
    . "/job/$subject.sh"
    printf '\ntime %s: %s\n' "$subject" "$(seconds $(($(now) - began)))"
done
grep -hE ' (WARN|ERROR) ' /tmp/*.log
echo "the job has ended"

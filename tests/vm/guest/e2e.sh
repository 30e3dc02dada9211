# The end-to-end tests of the project, on this kernel and this cgroup tree. Not among the suites
# that run by themselves: emulated, they take long. VM_TESTS names the directory of the programs.
# shellcheck shell=bash

# limit the_end_to_end_tests_pass_here 3000
the_end_to_end_tests_pass_here() {
  export LITTLEBOX_BIN_DIR=/payload/bin LITTLEBOX_TEST_PATIENCE=10 LITTLEBOX_TEST_CACHE=/var/lib/vm/cache
  local program status=0
  for program in /payload/tests/*; do
    # Its totals are a note in any case; which test failed and why is shown on failure.
    "$program" --test-threads 2 >/tmp/e2e 2>&1 || { status=1; grep -v ' \.\.\. ok$' /tmp/e2e | tail -n 200; }
    echo "note: $(basename "$program"): $(grep '^test result' /tmp/e2e || echo 'no result')"
    grep ' \.\.\. FAILED$' /tmp/e2e | sed 's/^/note:   /' || true
  done
  return $status
}

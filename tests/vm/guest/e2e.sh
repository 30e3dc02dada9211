# The end-to-end tests of resources, which elsewhere run on the host that there is: here on this one.
# shellcheck shell=bash

_e2e() {
  local program=/payload/tests/$1
  shift
  LITTLEBOX_BIN_DIR=/payload/bin LITTLEBOX_TEST_CACHE=/var/lib/vm/cache LITTLEBOX_TEST_PATIENCE=10 \
    "$program" --test-threads 2 "$@"
}

the_tests_of_resources_pass() { _e2e resources; }

the_tests_of_the_oom_killer_pass() { _e2e oom; }

the_tests_of_hosts_without_a_cgroup_tree_pass() { _e2e cgroup_hosts; }

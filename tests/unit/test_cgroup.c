/* Names of containers and services in the paths of control groups. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>
#include <unistd.h>

#include "memprobe/cgroup.h"

#define ID "3418ab34c7dd1c4b8e1b0a4d4de3f9d2d9b7c6f5a1e2d3c4b5a697887766554f"

static void assert_container(const char *path, const char *expected)
{
	char name[CGROUP_NAME_MAX];
	const char *found = cgroup_container(path, name);

	if (!expected)
		assert_null(found);
	else
		assert_string_equal(found, expected);
}

static void containers_are_named(void **state)
{
	assert_container("/docker/" ID, "3418ab34c7dd");
	assert_container("/system.slice/docker-" ID ".scope", "3418ab34c7dd");
	assert_container("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podabc.slice/"
			 "cri-containerd-" ID ".scope",
			 "3418ab34c7dd");
	assert_container("/kubepods/besteffort/pod1-2-3/" ID, "3418ab34c7dd");
	assert_container("/machine.slice/libpod-" ID ".scope/container", "3418ab34c7dd");
	assert_container("/lxc.payload.web/system.slice", "web");
	assert_container("/lxc/web", "web");
}

static void services_are_named(void **state)
{
	assert_container("/system.slice/redis-server.service", "redis-server.service");
	assert_container("/system.slice/system-postgresql.slice/postgresql@15-main.service",
			 "postgresql@15-main.service");
}

static void others_have_no_name(void **state)
{
	assert_container("/", NULL);
	assert_container("", NULL);
	assert_container("/user.slice/user-1000.slice/session-2.scope", NULL);
	assert_container("/docker/3418", NULL);
	assert_container("////", NULL);
	assert_container("/.service", NULL);
}

/* This process's own, whatever there is. */
static void figures_make_sense(void **state)
{
	static struct cgroup_memory group;
	cleanup(process) struct process *process = NULL;

	assert_null(process_open(getpid(), &process));
	cgroup_read_memory(process, &group);
	if (!group.known)
		skip();
	assert_int_equal(group.path[0], '/');
	assert_int_not_equal(group.usage, CGROUP_UNKNOWN);
	assert_true(group.limit == CGROUP_UNKNOWN || group.limit_usage != CGROUP_UNKNOWN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(containers_are_named),
		cmocka_unit_test(services_are_named),
		cmocka_unit_test(others_have_no_name),
		cmocka_unit_test(figures_make_sense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

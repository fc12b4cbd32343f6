// Loaded before a User-Mode Linux kernel. Its buffer for the extended processor state (regset NT_X86_XSTATE) holds 2,696
// bytes; where the processor has more, as with AMX, the host's ptrace wants the whole state and refuses. The exchange is
// made here through a buffer that is large enough. libc's ptrace is replaced, so every other request is passed on.
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { XSTATE_REGSET = 0x202, LARGEST = 1 << 16, HEADER_AT = 512, HEADER_END = 576 };

// Components that lie within the kernel's 2,696 bytes: x87, SSE, AVX, AVX-512, PKRU.
static const uint64_t KNOWN_COMPONENTS = 0x2ff;

static size_t host_size;
static __thread unsigned char state[LARGEST] __attribute__((aligned(64)));

static long host(long request, pid_t pid, struct iovec *area)
{
	return syscall(SYS_ptrace, request, pid, (void *)XSTATE_REGSET, area);
}

static long fetch(pid_t pid)
{
	struct iovec area = { state, LARGEST };
	long result = host(PTRACE_GETREGSET, pid, &area);
	if (result == 0)
		host_size = area.iov_len;
	return result;
}

static long read_state(pid_t pid, struct iovec *wanted)
{
	if (fetch(pid) < 0)
		return -1;
	if (wanted->iov_len > host_size)
		wanted->iov_len = host_size;
	memcpy(wanted->iov_base, state, wanted->iov_len);
	return 0;
}

static long write_state(pid_t pid, const struct iovec *given)
{
	if (host_size == 0 && fetch(pid) < 0)
		return -1;
	size_t length = given->iov_len < host_size ? given->iov_len : host_size;
	memset(state, 0, host_size);
	memcpy(state, given->iov_base, length);
	if (length >= HEADER_END) {
		uint64_t components;
		memcpy(&components, state + HEADER_AT, sizeof components);
		components &= KNOWN_COMPONENTS;
		memcpy(state + HEADER_AT, &components, sizeof components);
	}
	struct iovec area = { state, host_size };
	return host(PTRACE_SETREGSET, pid, &area);
}

long ptrace(enum __ptrace_request request, ...)
{
	va_list rest;
	va_start(rest, request);
	pid_t pid = va_arg(rest, pid_t);
	void *address = va_arg(rest, void *);
	void *data = va_arg(rest, void *);
	va_end(rest);
	if (address == (void *)XSTATE_REGSET && request == PTRACE_GETREGSET)
		return read_state(pid, data);
	if (address == (void *)XSTATE_REGSET && request == PTRACE_SETREGSET)
		return write_state(pid, data);
	// The system call stores the word that a peek reads; libc's function returns it.
	if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER) {
		long word;
		if (syscall(SYS_ptrace, request, pid, address, &word) < 0)
			return -1;
		errno = 0;
		return word;
	}
	return syscall(SYS_ptrace, request, pid, address, data);
}

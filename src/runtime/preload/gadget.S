/* The gadget page: system calls that the seccomp filter exempts by their address.
 *
 * install_gadget() copies [enchilada_gadget_begin, enchilada_gadget_end) to a fixed address, so that a filter
 * inherited through exec still recognises it. The entries:
 *   +0   long call(nr, a, b, c, d, e, f): a plain function, for the runtime itself;
 *   checked: long call(nr, a, b, c, d, e, f, const uint32_t* counter, uint32_t expected): the same, unless the
 *        counter has changed: then, and when a signal handler comes before the call has begun or is to restart
 *        it, the answer is kRestart (leave_gadget() sees to that), and the caller prepares the call anew. Nothing
 *        is on the stack but the return address, so that a handler can be made to interrupt the caller instead.
 *   +64  "user" gadget: the SIGSYS handler returns here with the program's registers; the call is made under the
 *        program's own signal mask (so it can be interrupted and restarted), then enchilada_call_done() unpins what
 *        was pinned and says where to go on. Invariant: but for rax, rcx and r11 (which a system call clobbers
 *        anyway) every register, the flags and the red zone are as the program left them.
 *   program: as +0, for calls that a wrapper makes in the program's place. A filter of the program's spares only
 *        what comes from below +64 (program_filter.h).
 */
        .section .note.GNU-stack,"",@progbits
        .macro call_with_c_arguments    /* long f(long nr, long a, ... long f), to the kernel's registers */
        mov     %rdi, %rax
        mov     %rsi, %rdi
        mov     %rdx, %rsi
        mov     %rcx, %rdx
        mov     %r8, %r10
        mov     %r9, %r8
        mov     8(%rsp), %r9
        syscall
        ret
        .endm
        .text
        .balign 64
        .globl enchilada_gadget_begin
        .hidden enchilada_gadget_begin
        .globl enchilada_gadget_end
        .hidden enchilada_gadget_end
enchilada_gadget_begin:
        call_with_c_arguments
        .balign 64
        syscall
        lea     -136(%rsp), %rsp        /* red zone, and 8 bytes for the address to go on at */
        pushfq
        push    %rax
        push    %rdi
        push    %rsi
        push    %rdx
        push    %r10
        push    %r8
        push    %r9
        push    %rbp
        mov     %rsp, %rbp
        mov     %rsp, %rdi
        sub     $512, %rsp
        and     $-16, %rsp
        fxsave64 (%rsp)
        cld
        .globl enchilada_gadget_target
        .hidden enchilada_gadget_target
        movabs  $0x1122334455667788, %rax
enchilada_gadget_target:                /* the 8 bytes before this label are patched */
        call    *%rax
        fxrstor64 (%rsp)
        mov     %rbp, %rsp
        pop     %rbp
        pop     %r9
        pop     %r8
        pop     %r10
        pop     %rdx
        pop     %rsi
        pop     %rdi
        pop     %rax
        popfq
        ret     $128
        .balign 64
        .globl enchilada_gadget_checked
        .hidden enchilada_gadget_checked
        .globl enchilada_gadget_checked_call
        .hidden enchilada_gadget_checked_call
        .globl enchilada_gadget_checked_done
        .hidden enchilada_gadget_checked_done
        .globl enchilada_gadget_checked_end
        .hidden enchilada_gadget_checked_end
enchilada_gadget_checked:
        mov     %rdi, %rax
        mov     %rsi, %rdi
        mov     %rdx, %rsi
        mov     %rcx, %rdx
        mov     %r8, %r10
        mov     %r9, %r8
        mov     8(%rsp), %r9
        mov     16(%rsp), %rcx
        mov     24(%rsp), %r11
        cmp     %r11d, (%rcx)
        jne     1f
enchilada_gadget_checked_call:
        syscall
enchilada_gadget_checked_done:
        ret
1:      mov     $-512, %rax
        ret
enchilada_gadget_checked_end:
        .balign 64
        .globl enchilada_gadget_program
        .hidden enchilada_gadget_program
enchilada_gadget_program:
        call_with_c_arguments
enchilada_gadget_end:

/* bool enchilada_probe_read(const void*), bool enchilada_probe_write(void*): touch one byte; false when the access
 * is not allowed. The fault handler resolves a page fault here like any other; when it cannot, it continues at the
 * fixup instead of raising the program's SIGSEGV (the kernel's exception tables, in small). */
        .globl enchilada_probe_read
        .hidden enchilada_probe_read
        .globl enchilada_probe_write
        .hidden enchilada_probe_write
        .globl enchilada_probe_fixup
        .hidden enchilada_probe_fixup
        .globl enchilada_probe_begin
        .hidden enchilada_probe_begin
        .globl enchilada_probe_end
        .hidden enchilada_probe_end
enchilada_probe_begin:
enchilada_probe_read:
        movb    (%rdi), %al
        mov     $1, %eax
        ret
enchilada_probe_write:
        lock orb $0, (%rdi)
        mov     $1, %eax
        ret
enchilada_probe_end:
enchilada_probe_fixup:
        xor     %eax, %eax
        ret

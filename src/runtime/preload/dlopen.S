/* dlopen without RTLD_DEEPBIND: a library so bound would take libc's malloc and free instead of ours and hand one
 * allocator's memory to the other (PHP loads its extensions that way).
 *
 * A jump, not a call: dlopen looks for libraries as the caller's own RUNPATH says, and tells the caller by the return
 * address.
 */
        .section .note.GNU-stack,"",@progbits
        .text
        .globl dlopen
        .type dlopen, @function
dlopen:
        and     $~8, %esi               /* RTLD_DEEPBIND */
        jmp     *enchilada_next_dlopen(%rip)
        .size dlopen, .-dlopen

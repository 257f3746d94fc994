//! The filter as the kernel runs it: a program for its packet filter's machine (classic BPF), over
//! `struct seccomp_data` in place of a packet.
//!
//! ```text
//!  0 nr              number of the call
//!  4 arch            whose numbers: a kernel can serve programs of two kinds at a time
//!  8 instruction     64 bits, not looked at
//! 16 args[0..6]      64 bits each, in the machine's byte order
//! ```
//!
//! The machine takes 32 bits at a time. All that is compared here are 32-bit arguments or flags in the
//! lower half, which is the second one of big-endian machines.
//!
//! The rules are gone through in their order, and each costs time at every call behind it: those that every
//! packet needs come first.

use libc::sock_filter;

/// A call that may be made.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Its number.
    pub call: u32,
    /// What goes for its arguments; all of them must. Rules for the same call in a row are alternatives.
    pub when: &'static [Test],
}

/// A condition on the argument of that index.
#[derive(Debug, Clone, Copy)]
pub enum Test {
    /// It is one of these.
    OneOf(u8, &'static [u32]),
    /// It is less.
    Below(u8, u32),
    /// Any of these bits is set.
    Any(u8, u32),
    /// None of these bits is set.
    None(u8, u32),
    /// One of these bits is not set.
    NotAll(u8, u32),
    /// It is this process's id.
    OwnProcess(u8),
}

/// Byte order of the machine.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    /// Whether the upper half of a 64-bit value comes first.
    pub big_endian: bool,
}

impl Order {
    const fn argument(self, index: u8) -> u32 {
        16 + 8 * index as u32 + if self.big_endian { 4 } else { 0 }
    }
}

const NUMBER: u32 = 0;
const ARCH: u32 = 4;

const ALLOW: sock_filter = answer(libc::SECCOMP_RET_ALLOW);
const NOT_PERMITTED: sock_filter = answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
const NO_SUCH_CALL: sock_filter = answer(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);
/// Kernels before 4.14 take it for the end of the thread, which is all there is most of the time.
const KILL: sock_filter = answer(libc::SECCOMP_RET_KILL_PROCESS);

/// In place of a distance: to the end of the alternative. Distances are far smaller, which a test makes sure of.
const FAIL: u8 = u8::MAX;

/// The program for calls of this architecture and process.
pub fn assemble<'r>(
    arch: u32,
    rules: impl Iterator<Item = &'r Rule>,
    deadly: &[u32],
    process: u32,
    order: Order,
) -> Vec<sock_filter> {
    let mut program = vec![load(ARCH), jump(libc::BPF_JEQ, arch, 1, 0), KILL, load(NUMBER)];
    let mut rules = rules.peekable();
    while let Some(rule) = rules.next() {
        // From here on the number of the call is not needed again if it is this one.
        let start = program.len();
        program.push(jump(libc::BPF_JEQ, rule.call, 0, FAIL));
        alternative(&mut program, rule.when, process, order);
        while let Some(other) = rules.next_if(|other| other.call == rule.call) {
            alternative(&mut program, other.when, process, order);
        }
        if !rule.when.is_empty() {
            program.push(NOT_PERMITTED);
        }
        settle(&mut program, start, start + 1);
    }
    for call in deadly {
        program.extend([jump(libc::BPF_JEQ, *call, 0, 1), KILL]);
    }
    program.push(NO_SUCH_CALL);
    program
}

/// Allows the call if all tests hold, or goes on behind.
fn alternative(program: &mut Vec<sock_filter>, tests: &[Test], process: u32, order: Order) {
    let start = program.len();
    for test in tests {
        let (Test::OneOf(index, _)
        | Test::Below(index, _)
        | Test::Any(index, _)
        | Test::None(index, _)
        | Test::NotAll(index, _)
        | Test::OwnProcess(index)) = *test;
        program.push(load(order.argument(index)));
        match *test {
            Test::OneOf(_, values) => {
                for (value, left) in values.iter().zip((0..values.len() as u8).rev()) {
                    let other = if left == 0 { FAIL } else { 0 };
                    program.push(jump(libc::BPF_JEQ, *value, left, other));
                }
            }
            Test::Below(_, limit) => program.push(jump(libc::BPF_JGE, limit, FAIL, 0)),
            Test::Any(_, bits) => program.push(jump(libc::BPF_JSET, bits, 0, FAIL)),
            Test::None(_, bits) => program.push(jump(libc::BPF_JSET, bits, FAIL, 0)),
            Test::NotAll(_, bits) => program.extend([
                instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, bits, 0, 0),
                jump(libc::BPF_JEQ, bits, FAIL, 0),
            ]),
            Test::OwnProcess(_) => program.push(jump(libc::BPF_JEQ, process, 0, FAIL)),
        }
    }
    program.push(ALLOW);
    let end = program.len();
    settle(program, start, end);
}

/// Makes the failures between `start` and `end` go to the end of the program as it is.
fn settle(program: &mut [sock_filter], start: usize, end: usize) {
    let len = program.len();
    for (place, one) in program.iter_mut().enumerate().take(end).skip(start) {
        // Both are counted from the next instruction.
        let distance = (len - place - 1) as u8;
        for jump in [&mut one.jt, &mut one.jf] {
            if *jump == FAIL {
                *jump = distance;
            }
        }
    }
}

const fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

const fn load(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

const fn jump(condition: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    instruction(libc::BPF_JMP | condition | libc::BPF_K, k, jt, jf)
}

const fn answer(value: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, value, 0, 0)
}

#[cfg(test)]
mod tests;

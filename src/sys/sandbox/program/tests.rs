//! The program against the table: an interpreter, and a model that looks everything up the slow way.

use super::*;

/// What the kernel hands to the program.
#[derive(Clone, Copy)]
struct Data {
    nr: u32,
    arch: u32,
    args: [u64; 6],
}

impl Data {
    fn bytes(&self, order: Order) -> [u8; 64] {
        let mut bytes = [0; 64];
        let mut put = |at: usize, value: u64, len: usize| {
            let native = if order.big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
            let part = if order.big_endian { &native[8 - len..] } else { &native[..len] };
            bytes[at..at + len].copy_from_slice(part);
        };
        put(0, self.nr.into(), 4);
        put(4, self.arch.into(), 4);
        put(8, 0x1122_3344_5566_7788, 8);
        for (index, value) in self.args.iter().enumerate() {
            put(16 + 8 * index, *value, 8);
        }
        bytes
    }
}

/// Runs it as the kernel would, which takes nothing but whole words inside and jumps forward to what is there.
fn run(program: &[sock_filter], data: &Data, order: Order) -> u32 {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let (bytes, mut a, mut at) = (data.bytes(order), 0, 0);
    loop {
        let one = program[at];
        at += 1;
        let hit = match u32::from(one.code) {
            LOAD => {
                assert_eq!(one.k % 4, 0);
                let word = bytes[one.k as usize..][..4].try_into().unwrap();
                a = if order.big_endian {
                    u32::from_be_bytes(word)
                } else {
                    u32::from_le_bytes(word)
                };
                continue;
            }
            AND => {
                a &= one.k;
                continue;
            }
            RETURN => return one.k,
            code => match code & !(libc::BPF_JMP | libc::BPF_K) {
                libc::BPF_JEQ => a == one.k,
                libc::BPF_JGE => a >= one.k,
                libc::BPF_JSET => a & one.k != 0,
                other => panic!("{other:#x} is not made here"),
            },
        };
        at += usize::from(if hit { one.jt } else { one.jf });
    }
}

/// What the table says, looked up the slow way.
fn model(rules: &[Rule], deadly: &[u32], arch: u32, process: u32, data: &Data) -> u32 {
    if data.arch != arch {
        return libc::SECCOMP_RET_KILL_PROCESS;
    }
    let mut found = rules.iter().filter(|rule| rule.call == data.nr).peekable();
    if found.peek().is_some() {
        let holds = |test: &Test| {
            let arg = |index: u8| data.args[usize::from(index)] as u32;
            match *test {
                Test::OneOf(index, values) => values.contains(&arg(index)),
                Test::Below(index, limit) => arg(index) < limit,
                Test::Any(index, bits) => arg(index) & bits != 0,
                Test::None(index, bits) => arg(index) & bits == 0,
                Test::NotAll(index, bits) => !arg(index) & bits != 0,
                Test::OwnProcess(index) => arg(index) == process,
            }
        };
        return match found.any(|rule| rule.when.iter().all(holds)) {
            true => libc::SECCOMP_RET_ALLOW,
            false => libc::SECCOMP_RET_ERRNO | libc::EPERM as u32,
        };
    }
    match deadly.contains(&data.nr) {
        true => libc::SECCOMP_RET_KILL_PROCESS,
        false => libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32,
    }
}

/// Arguments at the edges of each test, and with rubbish in the upper half.
fn values(rules: &[Rule], process: u32) -> Vec<u64> {
    let mut values = vec![0, 1, u32::MAX, process, process + 1];
    for test in rules.iter().flat_map(|rule| rule.when) {
        match *test {
            Test::OneOf(_, some) => values.extend(some),
            Test::Below(_, limit) => values.extend([limit - 1, limit, limit + 1]),
            Test::Any(_, bits) | Test::None(_, bits) | Test::NotAll(_, bits) => {
                values.extend([bits, !bits, bits & bits.wrapping_neg()]);
            }
            Test::OwnProcess(_) => {}
        }
    }
    values.sort_unstable();
    values.dedup();
    let upper = |value: &u32| [u64::from(*value), 0xdead_beef << 32 | u64::from(*value)];
    values.iter().flat_map(upper).collect()
}

/// Every number that there is, and those of other ways into the kernel, in both byte orders.
fn check(arch: u32, rules: &[Rule], deadly: &[u32]) {
    const PROCESS: u32 = 4321;
    let values = values(rules, PROCESS);
    for big_endian in [false, true] {
        let order = Order { big_endian };
        let program = assemble(arch, rules.iter(), deadly, PROCESS, order);
        assert!(program.len() < 1024, "{} instructions", program.len());
        let agree = |data: Data| {
            let expected = model(rules, deadly, arch, PROCESS, &data);
            let found = run(&program, &data, order);
            assert_eq!(found, expected, "call {} {:x?}", data.nr, data.args);
        };
        let x32 = (0..600).map(|nr| nr | 0x4000_0000);
        for nr in (0..6_000).chain(x32).chain([u32::MAX, 0x000f_0002]) {
            agree(Data { nr, arch, args: [0; 6] });
            agree(Data { nr, arch: arch ^ 0x8000_0000, args: [0; 6] });
            agree(Data { nr, arch: arch ^ 0x4000_0000, args: [0; 6] });
        }
        for rule in rules.iter().filter(|rule| !rule.when.is_empty()) {
            for first in &values {
                for other in &values {
                    let args = [*first, *other, *other, *first, *other, *first];
                    agree(Data { nr: rule.call, arch, args });
                    let args = [*first, *first, *other, *other, *other, *first];
                    agree(Data { nr: rule.call, arch, args });
                }
            }
        }
    }
}

const RULES: &[Rule] = &[
    Rule { call: 3, when: &[] },
    Rule { call: 7, when: &[Test::OneOf(0, &[2, 10, 1])] },
    Rule { call: 7, when: &[Test::OneOf(0, &[16]), Test::OneOf(2, &[0])] },
    Rule { call: 8, when: &[Test::Below(1, 64), Test::Any(0, 0x1_0000)] },
    Rule { call: 9, when: &[Test::None(2, 4)] },
    Rule { call: 10, when: &[Test::NotAll(2, 6)] },
    Rule { call: 11, when: &[Test::OwnProcess(0)] },
    Rule { call: 4_422, when: &[] },
];

#[test]
fn exactly_what_the_rules_allow_passes() {
    check(0xc000_003e, RULES, &[12, 13]);
    check(8, RULES, &[]);
    check(8, &[], &[1]);
}

/// This processor's own list; with the suite for MIPS, which is emulated, that one's.
#[test]
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "arm",
    target_arch = "mips"
))]
fn exactly_what_this_processors_list_allows_passes() {
    use crate::sys::sandbox::calls::{ALLOWED, ARCH, DEADLY};

    let rules: Vec<Rule> = ALLOWED.concat();
    check(ARCH, &rules, DEADLY);
    let mut calls: Vec<u32> = rules.iter().map(|rule| rule.call).collect();
    calls.dedup();
    calls.extend(DEADLY);
    let count = calls.len();
    calls.sort_unstable();
    calls.dedup();
    assert_eq!(calls.len(), count, "one is named twice, not as an alternative");
}

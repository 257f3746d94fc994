//! TCP and UDP packets from their fields, the slow way, and how a kernel would take pieces apart.

use sixgate::offload::vnet::{Segments, VnetHeader};

/// xorshift64*: repeatable.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.roll() % bound as u64) as usize
    }

    pub fn byte(&mut self) -> u8 {
        self.roll() as u8
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.byte()).collect()
    }
}

/// The state of a sender.
#[derive(Clone)]
pub struct Flow {
    pub v6: bool,
    pub udp: bool,
    /// Last bytes of source and destination.
    pub ends: (u8, u8),
    pub ports: (u16, u16),
    pub sequence: u32,
    pub id: u16,
    window: u16,
    tcp_options: Vec<u8>,
    class: u8,
    ttl: u8,
}

impl Flow {
    pub fn random(dice: &mut Dice) -> Self {
        let tcp_options = match dice.below(3) {
            0 => Vec::new(),
            1 => [&[1, 1, 8, 10][..], &dice.bytes(8)].concat(),
            _ => [&[1, 1, 5, 10][..], &dice.bytes(8), &[1, 1, 1, 1]].concat(),
        };
        Self {
            v6: dice.below(2) == 0,
            udp: dice.below(4) == 0,
            ends: (dice.below(2) as u8 + 1, 9),
            ports: (1000 + dice.below(2) as u16, 80),
            sequence: if dice.below(4) == 0 { u32::MAX - 3000 } else { dice.roll() as u32 },
            id: if dice.below(4) == 0 { u16::MAX - 3 } else { dice.roll() as u16 },
            window: dice.roll() as u16,
            tcp_options,
            class: dice.byte() & 0xfc,
            ttl: 64,
        }
    }

    /// A packet at the flow's present state, which stays as it is.
    pub fn packet(&self, dice: &mut Dice, udp: bool, payload: usize) -> Packet {
        Packet {
            flow: self.clone(),
            udp,
            flags: 0x10 | [0, 8, 1, 0x80][dice.below(4)],
            acknowledgement: 77,
            urgent: 0,
            fragment: 0x4000,
            ip_options: if dice.below(4) == 0 { vec![1, 1, 1, 0] } else { Vec::new() },
            extension: dice.below(4) == 0,
            unsummed: false,
            payload: dice.bytes(payload),
            damage: None,
        }
    }

    /// The next packet of a bulk transfer.
    pub fn next(&mut self, dice: &mut Dice, payload: usize) -> Packet {
        let mut packet = self.packet(dice, self.udp, payload);
        packet.flags = 0x10;
        packet.ip_options.clear();
        packet.extension = false;
        self.sequence = self.sequence.wrapping_add(payload as u32);
        self.id = self.id.wrapping_add(1);
        packet
    }
}

/// One packet's fields.
#[derive(Clone)]
pub struct Packet {
    pub flow: Flow,
    pub udp: bool,
    pub flags: u8,
    pub acknowledgement: u32,
    pub urgent: u16,
    /// IPv4 flags and fragment offset.
    pub fragment: u16,
    pub ip_options: Vec<u8>,
    /// A destination options header in front of the transport header (IPv6).
    pub extension: bool,
    /// UDP without a checksum.
    pub unsummed: bool,
    pub payload: Vec<u8>,
    /// A bit to flip when all is done.
    pub damage: Option<usize>,
}

/// Word by word (RFC 1071).
pub fn sum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let mut total: u32 = 0;
    for pair in bytes.chunks(2) {
        total += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

impl Packet {
    fn addresses(&self) -> Vec<u8> {
        let (from, to) = self.flow.ends;
        if self.flow.v6 {
            let address =
                |end| [&[0xfd, 0, end, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &[end]].concat();
            [address(from), address(to)].concat()
        } else {
            vec![10, from, 0, from, 10, to, 0, to]
        }
    }

    /// The IP header for a transport part of `len` bytes.
    fn ip(&self, len: usize) -> Vec<u8> {
        let flow = &self.flow;
        let protocol = if self.udp { 17 } else { 6 };
        if flow.v6 {
            let extension =
                if self.extension { vec![protocol, 0, 1, 4, 0, 0, 0, 0] } else { vec![] };
            let next = if self.extension { 60 } else { protocol };
            let mut ip = vec![0x60 | flow.class >> 4, flow.class << 4, 1, 2];
            ip.extend(((len + extension.len()) as u16).to_be_bytes());
            ip.extend([next, flow.ttl]);
            ip.extend(self.addresses());
            ip.extend(extension);
            return ip;
        }
        let header = 20 + self.ip_options.len();
        let mut ip = vec![0x40 | (header / 4) as u8, flow.class];
        ip.extend(((header + len) as u16).to_be_bytes());
        ip.extend(flow.id.to_be_bytes());
        ip.extend(self.fragment.to_be_bytes());
        ip.extend([flow.ttl, protocol, 0, 0]);
        ip.extend(self.addresses());
        ip.extend(&self.ip_options);
        let checksum = !sum(&[&ip]);
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        ip
    }

    /// The transport header, its checksum zero.
    fn transport(&self) -> Vec<u8> {
        let flow = &self.flow;
        let mut header = [flow.ports.0.to_be_bytes(), flow.ports.1.to_be_bytes()].concat();
        if self.udp {
            header.extend(((8 + self.payload.len()) as u16).to_be_bytes());
            header.extend([0, 0]);
            return header;
        }
        header.extend(flow.sequence.to_be_bytes());
        header.extend(self.acknowledgement.to_be_bytes());
        header.push((((20 + flow.tcp_options.len()) / 4) << 4) as u8);
        header.push(self.flags);
        header.extend(flow.window.to_be_bytes());
        header.extend([0, 0]);
        header.extend(self.urgent.to_be_bytes());
        header.extend(&flow.tcp_options);
        header
    }

    fn pseudo(&self, len: usize) -> u16 {
        let protocol = if self.udp { 17 } else { 6 };
        sum(&[&self.addresses(), &[0, protocol], &(len as u16).to_be_bytes()])
    }

    fn checksum_at(&self) -> usize {
        if self.udp { 6 } else { 16 }
    }

    /// The complete packet.
    pub fn bytes(&self) -> Vec<u8> {
        let mut transport = self.transport();
        let len = transport.len() + self.payload.len();
        let mut checksum = !sum(&[&transport, &self.payload, &self.pseudo(len).to_be_bytes()]);
        // An odd payload comes last in a real sum.
        if self.payload.len() % 2 == 1 {
            checksum = !sum(&[&self.pseudo(len).to_be_bytes(), &transport, &self.payload]);
        }
        if self.udp && checksum == 0 {
            checksum = 0xffff;
        }
        if self.udp && self.unsummed {
            checksum = 0;
        }
        let at = self.checksum_at();
        transport[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        let mut bytes = [self.ip(len), transport, self.payload.clone()].concat();
        if let Some(bit) = self.damage {
            let at = bit / 8 % bytes.len();
            bytes[at] ^= 1 << (bit % 8);
        }
        bytes
    }

    /// The packet as the kernel hands it over for segments of `mss` bytes.
    pub fn piece(&self, mss: usize) -> (VnetHeader, Vec<u8>) {
        let mut transport = self.transport();
        let len = transport.len() + self.payload.len();
        let at = self.checksum_at();
        transport[at..at + 2].copy_from_slice(&self.pseudo(len).to_be_bytes());
        let ip = self.ip(len);
        let header = VnetHeader {
            needs_checksum: true,
            segments: match (self.udp, self.flow.v6) {
                (true, _) => Segments::Udp,
                (false, false) => Segments::Tcp4,
                (false, true) => Segments::Tcp6,
            },
            header_len: (ip.len() + transport.len()) as u16,
            segment: mss as u16,
            checksum_start: ip.len() as u16,
            checksum_offset: at as u16,
        };
        (header, [ip, transport, self.payload.clone()].concat())
    }

    /// Whether it is none of those that are put together, whatever the others are like.
    fn is_odd(&self) -> bool {
        let odd_ip = match self.flow.v6 {
            true => self.extension,
            false => !self.ip_options.is_empty() || self.fragment & 0x3fff != 0,
        };
        let odd = if self.udp { self.unsummed } else { self.flags & !8 != 0x10 };
        odd_ip || odd || self.payload.is_empty()
    }

    /// Whether `later`, which came in later, must come out later.
    pub fn must_precede(&self, later: &Self) -> bool {
        let same_hosts = self.flow.v6 == later.flow.v6 && self.flow.ends == later.flow.ends;
        // A damaged packet may be anybody's, and promises nothing.
        let sound = self.damage.is_none() && later.damage.is_none();
        let same_flow = self.flow.ports == later.flow.ports && self.udp == later.udp;
        same_hosts && sound && (same_flow || later.is_odd() || self.is_odd())
    }
}

/// The fields of a complete packet.
fn parse(bytes: &[u8]) -> (usize, usize, bool) {
    let v6 = bytes[0] >> 4 == 6;
    let (ip, protocol) = match v6 {
        true if bytes[6] == 60 => (48, bytes[40]),
        true => (40, bytes[6]),
        false => (usize::from(bytes[0] & 15) * 4, bytes[9]),
    };
    let udp = protocol == 17;
    let header = if udp { 8 } else { usize::from(bytes[ip + 12] >> 4) * 4 };
    (ip, header, udp)
}

/// Whether all checksums of a complete packet are right.
pub fn intact(bytes: &[u8]) -> bool {
    let (ip, _, udp) = parse(bytes);
    let v6 = bytes[0] >> 4 == 6;
    let addresses = if v6 { &bytes[8..40] } else { &bytes[12..20] };
    let len = ((bytes.len() - ip) as u16).to_be_bytes();
    let protocol = [0, if udp { 17 } else { 6 }];
    (v6 || sum(&[&bytes[..ip]]) == 0xffff)
        && sum(&[addresses, &protocol, &len, &bytes[ip..]]) == 0xffff
}

/// Takes a piece apart, one segment after the other, from copies of the headers.
pub fn model_split(header: &VnetHeader, piece: &[u8]) -> Vec<Vec<u8>> {
    let (ip_len, transport_len, udp) = parse(piece);
    let headers = ip_len + transport_len;
    let v6 = piece[0] >> 4 == 6;
    let chunks: Vec<&[u8]> = piece[headers..].chunks(usize::from(header.segment)).collect();
    let mut sequence = u32::from_be_bytes(piece[ip_len + 4..ip_len + 8].try_into().unwrap());
    let mut all = Vec::new();
    for (at, chunk) in chunks.iter().enumerate() {
        let mut bytes = [&piece[..headers], chunk].concat();
        let total = bytes.len();
        if v6 {
            bytes[4..6].copy_from_slice(&((total - 40) as u16).to_be_bytes());
        } else {
            let id = u16::from_be_bytes([piece[4], piece[5]]).wrapping_add(at as u16);
            bytes[2..4].copy_from_slice(&(total as u16).to_be_bytes());
            bytes[4..6].copy_from_slice(&id.to_be_bytes());
            bytes[10..12].fill(0);
            let checksum = !sum(&[&bytes[..ip_len]]);
            bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        let field = if udp {
            let len = (total - ip_len) as u16;
            bytes[ip_len + 4..ip_len + 6].copy_from_slice(&len.to_be_bytes());
            ip_len + 6
        } else {
            bytes[ip_len + 4..ip_len + 8].copy_from_slice(&sequence.to_be_bytes());
            sequence = sequence.wrapping_add(chunk.len() as u32);
            if at + 1 < chunks.len() {
                bytes[ip_len + 13] &= !(1 | 8);
            }
            if at > 0 {
                bytes[ip_len + 13] &= !0x80;
            }
            ip_len + 16
        };
        bytes[field..field + 2].fill(0);
        let addresses = if v6 { bytes[8..40].to_vec() } else { bytes[12..20].to_vec() };
        let protocol = [0, if udp { 17 } else { 6 }];
        let len = ((total - ip_len) as u16).to_be_bytes();
        let mut checksum = !sum(&[&addresses, &protocol, &len, &bytes[ip_len..]]);
        if udp && checksum == 0 {
            checksum = 0xffff;
        }
        bytes[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
        all.push(bytes);
    }
    all
}

/// What one batch of datagrams may bring: a few flows mixed, mostly bulk, with everything odd there is.
pub fn random_batch(dice: &mut Dice) -> Vec<Packet> {
    let mut flows: Vec<Flow> = (0..1 + dice.below(10)).map(|_| Flow::random(dice)).collect();
    let odd = dice.below(12) + 2;
    let size = [1, 40, 500, 1301][dice.below(4)];
    let count = 1 + dice.below(80);
    let mut at = 0;
    (0..count)
        .map(|_| {
            if dice.below(4) == 0 {
                at = dice.below(flows.len());
            }
            let flow = &mut flows[at];
            if dice.below(odd) != 0 {
                return flow.next(dice, size);
            }
            match dice.below(16) {
                0 => flow.ttl ^= 1,
                1 => flow.class ^= 0x03,
                2 => flow.window ^= 1,
                3 => flow.id = flow.id.wrapping_add(1),
                4 => flow.sequence = flow.sequence.wrapping_add(1),
                5 => flow.sequence = flow.sequence.wrapping_sub(size as u32),
                6 => flow.tcp_options = [&[1, 1, 8, 10][..], &dice.bytes(8)].concat(),
                7 => {
                    let udp = dice.below(2) == 0;
                    return flow.packet(dice, udp, size);
                }
                _ => {}
            }
            let shorter =
                if dice.below(2) == 0 { 1 + dice.below(size) } else { size + dice.below(3) };
            let mut packet = flow.next(dice, shorter);
            match dice.below(10) {
                0 => packet.flags |= 8,
                1 => packet.flags |= [1, 2, 4, 0x20, 0x40, 0x80][dice.below(6)],
                2 => packet.damage = Some(dice.below(packet.bytes().len() * 8)),
                3 => packet.fragment = [0x2000, 0x2001, 0x0005, 0x8000, 0][dice.below(5)],
                4 => packet.ip_options = vec![1, 1, 1, 0],
                5 => packet.extension = true,
                6 => packet.payload.clear(),
                7 => (packet.urgent, packet.unsummed) = (1, true),
                8 => packet.acknowledgement += 1,
                _ => {}
            }
            packet
        })
        .collect()
}

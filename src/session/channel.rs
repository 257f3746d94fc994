//! The control channel of one key: reliability, TLS and key exchange stacked on each other.
//!
//! ```text
//! packets -> reliable -> TLS bytes -> tls -> records -> key exchange, then control messages
//! packets <- reliable <- backlog   <- tls <- records <-
//! ```
//!
//! Headers and wrapping are the session's, and so is what the messages mean.

use crate::buf::Full;
use crate::random::Random;
use crate::session::negotiate::Exchange;
use crate::session::reliable::Reliable;
use crate::session::tls::{Oversize, Tls};
use crate::session::{Role, SessionConfig};
use crate::wire::control::{MessageId, Opcode, ResetFlags};
use crate::wire::key_method::KeyMethod2;
use crate::wire::message::{Message, messages};

/// Further messages wait in the session while so many TLS bytes wait for the window.
const BACKLOG: usize = 8 * 1024;

/// What the peer said.
pub(super) enum Heard {
    /// The payload of the server's reset.
    Flags(ResetFlags),
    /// (TLS handshake) its certificates, which are to be judged.
    Certificates(Vec<Vec<u8>>),
    /// Its half of the key exchange.
    Exchange(KeyMethod2),
    /// A control message.
    Message(Message),
}

/// How many TLS bytes fit a packet.
#[derive(Clone, Copy)]
pub(super) struct Room {
    /// In an ordinary packet.
    pub(super) plain: usize,
    /// In message 1 when it has to carry the wrapped client key.
    pub(super) with_wkc: Option<usize>,
}

/// One key's control channel.
pub(super) struct Channel {
    role: Role,
    pub(super) reliable: Reliable,
    tls: Option<Box<Tls>>,
    pub(super) exchange: Exchange,
    /// TLS bytes that wait for a place in the send window.
    backlog: Vec<u8>,
}

impl Channel {
    /// A channel that starts with `reset`, or one whose resets were exchanged elsewhere.
    pub(super) fn new(config: &SessionConfig, reset: Option<Opcode>) -> Self {
        let first = if reset.is_some() { 0 } else { 1 };
        let mut reliable = Reliable::new(first, config.send_window, config.timers.retransmit);
        if let Some(opcode) = reset {
            // The window is empty and at least one packet wide.
            let _room = reliable.push(opcode, Vec::new());
        }
        let exchange = Exchange::new(config.role, config.judges_peer);
        Self { role: config.role, reliable, tls: None, exchange, backlog: Vec::new() }
    }

    /// The TLS connection, for identity and keying material.
    pub(super) fn tls(&self) -> Option<&Tls> {
        self.tls.as_deref()
    }

    /// Whether both ends have all they need: the exchange is done and the peer has our part.
    pub(super) fn is_active(&self) -> bool {
        self.exchange.is_complete() && self.is_quiet()
    }

    /// Whether nothing waits to be sent or acknowledged.
    pub(super) fn is_quiet(&self) -> bool {
        self.backlog.is_empty() && self.reliable.is_idle()
    }

    /// Whether everything has gone out at least once.
    pub(super) fn all_sent(&self) -> bool {
        self.backlog.is_empty() && self.reliable.all_sent()
    }

    /// Works off what has arrived. The error is for the log; there may be a TLS alert to send.
    pub(super) fn advance(
        &mut self,
        config: &SessionConfig,
        rng: &mut dyn Random,
        heard: &mut Vec<Heard>,
    ) -> Result<(), String> {
        let result = self.read(config, heard).and_then(|()| self.speak(config, rng, heard));
        if let Some(tls) = &mut self.tls {
            tls.take_output(&mut self.backlog);
        }
        result
    }

    fn read(&mut self, config: &SessionConfig, heard: &mut Vec<Heard>) -> Result<(), String> {
        while let Some((opcode, payload)) = self.reliable.take() {
            match opcode {
                Opcode::HardResetServerV2 => {
                    let flags = ResetFlags::parse(&payload).map_err(|error| error.to_string())?;
                    heard.push(Heard::Flags(flags));
                }
                Opcode::ControlV1 | Opcode::WkcV1 => self.feed(config, &payload, heard)?,
                // A reset of the other kinds says nothing more.
                Opcode::SoftResetV1 | Opcode::HardResetClientV2 | Opcode::HardResetClientV3 => {}
                // The session lets none of these through.
                Opcode::AckV1 | Opcode::DataV1 | Opcode::DataV2 | Opcode::Unknown(_) => {}
            }
        }
        Ok(())
    }

    fn feed(
        &mut self,
        config: &SessionConfig,
        bytes: &[u8],
        heard: &mut Vec<Heard>,
    ) -> Result<(), String> {
        // A client with nothing but an acknowledgement to deliver sends WKC_V1 without TLS [2.5].
        if bytes.is_empty() {
            return Ok(());
        }
        self.begin(config)?;
        let Self { tls, exchange, .. } = self;
        let Some(tls) = tls else { return Ok(()) };
        let mut fault = None;
        tls.feed(bytes, |record| {
            if exchange.has_theirs() {
                hear_messages(record, heard);
                return;
            }
            match exchange.listen(record) {
                Ok(Some(message)) => heard.push(Heard::Exchange(message)),
                Ok(None) => {}
                Err(error) => fault = Some(error),
            }
        })?;
        fault.map_or(Ok(()), Err)
    }

    fn begin(&mut self, config: &SessionConfig) -> Result<(), String> {
        if self.tls.is_none() {
            let tls = config.tls.connect().ok_or("TLS could not be started")?;
            self.tls = Some(Box::new(tls));
        }
        Ok(())
    }

    fn speak(
        &mut self,
        config: &SessionConfig,
        rng: &mut dyn Random,
        heard: &mut Vec<Heard>,
    ) -> Result<(), String> {
        // The client begins TLS once its reset has been acknowledged [3.3].
        if self.role == Role::Client && self.tls.is_none() && self.reliable.is_idle() {
            self.begin(config)?;
        }
        let Some(tls) = &mut self.tls else { return Ok(()) };
        if tls.is_up() && self.exchange.asks_for_judgement() {
            heard.push(Heard::Certificates(tls.chain()));
        }
        if tls.is_up() && self.exchange.should_speak() {
            let message = self.exchange.speak(config, rng)?;
            tls.write(&message).map_err(|Full| "TLS takes no data".to_owned())?;
        }
        Ok(())
    }

    /// Writes a control message with its NUL as one record; `Full` while others are on their way.
    pub(super) fn write(&mut self, message: &[u8]) -> Result<(), Full> {
        let tls = self.tls.as_mut().filter(|_| self.exchange.is_complete()).ok_or(Full)?;
        if self.backlog.len() > BACKLOG {
            return Err(Full);
        }
        tls.write(message)?;
        tls.take_output(&mut self.backlog);
        Ok(())
    }

    /// Moves waiting TLS bytes into the send window as far as it has room.
    pub(super) fn fill(&mut self, room: Room) {
        while !self.backlog.is_empty() && self.reliable.has_room() {
            let wkc = room.with_wkc.filter(|_| self.reliable.next_id() == MessageId(1));
            let (opcode, room) = match wkc {
                Some(room) => (Opcode::WkcV1, room),
                None => (Opcode::ControlV1, room.plain),
            };
            let len = self.backlog.len().min(room);
            let payload: Vec<u8> = self.backlog.drain(..len).collect();
            // There is room: it was asked for above.
            let _pushed = self.reliable.push(opcode, payload);
        }
        if self.backlog.is_empty() {
            self.backlog = Vec::new();
        }
    }
}

fn hear_messages(record: Result<&[u8], Oversize>, heard: &mut Vec<Heard>) {
    let record = match record {
        Ok(record) => record,
        Err(Oversize) => {
            log::warn!("dropped an oversized control message");
            return;
        }
    };
    for message in messages(record) {
        match message {
            Ok(message) => heard.push(Heard::Message(message)),
            Err(error) => log::warn!("dropped a control message: {error}"),
        }
    }
}

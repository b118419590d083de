"""Every limit in one place: what, how much, and why that number."""

from typing import Final

# --- the event door (Segment's published limits, so that no client meets a surprise) ---
EVENT_BYTES_MAX: Final = 32 * 1024
BATCH_BYTES_MAX: Final = 500 * 1024
BATCH_EVENTS_MAX: Final = 2_500
BATCH_MERGED_BYTES_MAX: Final = 4 * 1024 * 1024  # With the batch's context in each event: 2 KiB in 2,000.
DECIDE_BYTES_MAX: Final = 512 * 1024  # Parsed in the event loop: some 2 ms. Holds 10,000 item ids.
MESSAGE_ID_LENGTH_MAX: Final = 100
IDENTIFIER_LENGTH_MAX: Final = 500  # Segment's cap on group ids; no real id is longer.
EVENT_NAME_LENGTH_MAX: Final = 500
NESTING_MAX: Final = 32  # Deeper JSON is an attack, not an event; Segment's own spec uses four levels.
CONTEXT_ENTRIES_MAX: Final = 500  # In its lists and objects: a rule that takes their square takes 20 ms.
CONTEXT_BYTES_MAX: Final = 32 * 1024  # What a request says of the visitor's surroundings; an event's size.
DEDUPLICATION_DAYS: Final = 2  # Days kept, the present one included: at least 24 h back at any moment.

# --- every door ---
BODY_BYTES_MAX: Final = 8 * 1024 * 1024  # 1,000 items of 8 KiB, the largest request of a back end.
PUBLIC_BODY_BYTES_MAX: Final = 1024 * 1024  # Of all others; the largest batch is half of it.
ARRIVING_BYTES_MAX: Final = 64 * 1024 * 1024  # Of all bodies that are not whole yet; past it, 429.
HEADER_BYTES_MAX: Final = 64 * 1024  # What nginx and uvicorn allow together; cookies are the bulk.
REQUEST_SECONDS_MAX: Final = 30.0  # A request must have arrived whole by then: slow clients hold a place.
KEEP_ALIVE_SECONDS: Final = 75  # Without a request; longer than usual proxies', so that they hang up first.
CONNECTIONS_MAX: Final = 10_000  # File descriptors of a usual process, less what the stores need.
PLACEMENTS_PER_REQUEST_MAX: Final = 50  # The busiest real page has some twenty.
COUNT_MAX: Final = 200  # Items in one list; more is a catalogue page, not a recommendation.
REQUEST_ITEMS_MAX: Final = 1_000  # `exclude` and `candidates` of one placement in a request.
ITEMS_PER_CALL_MAX: Final = 1_000
PAGE_SIZE_MAX: Final = 1_000

# --- the log ---
PENDING_BYTES_MAX: Final = 64 * 1024 * 1024  # Not yet synced: some 100,000 events; past it, 429.
SEGMENT_BYTES: Final = 64 * 1024 * 1024  # One read in a second; erasure rewrites whole segments.

# --- state ---
CHECKPOINT_SECONDS: Final = 15.0  # What comes in that time is folded again after a crash: some seconds of it.
CHECKPOINT_SLICE: Final = 40  # Profiles encoded per turn of the event loop: about 0.4 ms.
RECENT_EVENTS_MAX: Final = 50  # The ring of a profile; sequence models gain little past fifty.
VOCABULARY_MAX: Final = 65_536  # Event names, and categories, that events may make up; some 10 MiB.
COUNTER_KEYS_MAX: Final = 96  # Events, categories, brands, tags counted per profile; the least used goes.
FEATURES_MAX: Final = 1_000  # Definitions; the default catalogue has some 200.
FEATURE_SLOTS_MAX: Final = 8_192  # Variables of a profile: 32 KiB as a vector.
FEATURE_SERIES_MAX: Final = 256  # Counters of a profile that definitions ask for beside names' own: 140 KiB.
FEATURE_CELLS_MAX: Final = 1_024  # Single values of a profile that definitions keep.
FEATURE_VALUES_MAX: Final = 64  # Values that one encoder knows by name.
TRAITS_MAX: Final = 300  # Segment Unify's own cap on traits.
TRAIT_ENTRIES_MAX: Final = 100  # In the lists of one trait; rules may take their square.
TRAITS_BYTES_MAX: Final = 16 * 1024  # One visitor's traits; half an event of the largest size.
MERGES_MAX: Final = 100  # Profiles merged into one, as Segment Unify: more is a bot.
MAPPINGS_MAX: Final = 1_000  # Identifiers of one profile, as Segment Unify; some 150 KiB with their links.
LINKS_MAX: Final = MERGES_MAX + MAPPINGS_MAX  # One for each of both.
OWNERS_MAX: Final = 100  # Known users of one device; two already make it a shared one.
BOUNDARIES_MAX: Final = 200  # Times that a shared device is taken over by who signs in; more is a kiosk.
DEVICE_USES_MAX: Final = (
    200  # Stretches of signed-out use that one person took over; a fifth of their identifiers.
)
IDENTIFIER_TYPES_MAX: Final = 100  # With rules of their own; Segment allows 100 identifier types a space.
BLOCKED_MAX: Final = 100  # Own blocked patterns, each tried on every value that is not the usual.
EXTERNAL_IDS_MAX: Final = 10  # Of one event; more is not one person's.
GROUPS_MAX: Final = 20  # Accounts that a person belongs to; the oldest goes.
LINKS_PER_CALL_MAX: Final = 1_000
SUGGESTIONS_MAX: Final = 20_000  # Suggested links, rejected ones included: more than people review.
PEOPLE_COMPARED_MAX: Final = 1_000_000  # By Splink in one process: some 2 GiB of traits and pairs.
HINTS_MAX: Final = 5  # People with one fingerprint, and fingerprints of one person; more tell nothing.
PURCHASES_MAX: Final = 500  # Items remembered as bought; the oldest goes.
OPEN_DECISIONS_MAX: Final = 50  # Per profile, waiting for an exposure or outcome to be joined.
RECENT_DECISIONS_MAX: Final = 4_096  # Kept decoded for reports that come soon; some 8 MiB with lists.
IMPRESSIONS_MAX: Final = 100  # Times shown, per profile and placement, for frequency caps.
CATALOGUE_ITEMS_MAX: Final = 200_000  # Some 200 MiB in memory; past it, another catalogue store.
NAMED_ITEMS_MAX: Final = 200_000  # Ids that events name and the catalogue lacks; some 100 MiB.
ITEM_IDS_MAX: Final = 1_000_000  # Ever given an index, which stays theirs for good.
PLACEMENTS_MAX: Final = 1_000
VARIANTS_MAX: Final = 100  # Exact propensities at 100 arms cost about half a millisecond.
COVISITS_PER_ITEM_MAX: Final = 64  # Neighbours kept an item; lists are ten long.
ITEM_BYTES_MAX: Final = 8 * 1024
RULE_LENGTH_MAX: Final = 2_000  # Characters of a CEL expression.
RULES_MAX: Final = 100
SEGMENTS_MAX: Final = 500  # Rule segments: all of them evaluated take about a millisecond.
SEQUENCE_STEPS_MAX: Final = 10  # Of a segment's sequence; funnels that people draw have up to seven.
SEGMENT_CHANGES_MAX: Final = 20  # Entered and left, kept a profile: a kilobyte; the log has all of them.
SEGMENT_PASS_SECONDS: Final = 60.0  # Between two passes over everybody, at the least.
SEGMENT_PASS_SHARE: Final = 0.05  # Of the time is spent on them: a million profiles take a minute.

DIRTY_MAX: Final = 200_000  # Changed entries not yet committed, some 500 MiB; past it, 429.
REBUILD_DIRTY_MAX: Final = 60_000  # Changed entries between two commits of a rebuild: bounds its memory.
REJECTS_BYTES_MAX: Final = 1024 * 1024 * 1024  # Refused events kept; past it they are only counted.

# --- the warehouse ---
HISTORY_BYTES: Final = 8 * 1024 * 1024  # Rows in memory that are written without waiting for a checkpoint.
HISTORY_BYTES_MAX: Final = 64 * 1024 * 1024  # Rows that wait for the disk; past it, 429.
FILES_SMALL_MAX: Final = 16  # Of a table and day before they are merged: four minutes of checkpoints.
ROWS_SMALL_MAX: Final = 32_768  # A file with fewer is small; scans are as fast over larger ones.

# --- decide ---
DEADLINE_MS_DEFAULT: Final = 50.0
DEADLINE_MS_MAX: Final = 5_000.0
REFRESH_UPDATES: Final = 256  # Popularity is ranked again after so many counted events.

# --- computed attributes ---
LEARN_ROWS_MAX: Final = (
    60_000  # People times cuts: 420 MiB of 1,700 variables; others are left out at random.
)
LEARN_PEOPLE_MAX: Final = 50_000  # That clusters are fitted to, as much.
LEARN_WRITES: Final = 200  # People's values logged between two turns of the event loop: some 10 ms.
ARTIFACTS_KEPT_MAX: Final = 30  # Files: a week of models, a megabyte each.
COMPUTED_SEGMENTS_MAX: Final = 20  # Classes of one attribute; a marketer tells no more apart.
COMPUTED_ROWS_MIN: Final = 200  # In each part of the time split: with fewer, chance beats baselines.
COMPUTED_ROWS_MAX: Final = 200_000  # Learned from, the others left out at random: 0.8 GB at 1,000 features.
COMPUTED_CUTS_MAX: Final = 12  # Learned from, the latest: older ones tell of another season.
COMPUTED_THREADS: Final = 1  # Of LightGBM: the rest serves; two took four times as long on busy cores.

# --- privacy ---
IDENTITIES_MAX: Final = 100  # Named in one request; each leads to all others of its person.
ERASURES_PENDING_MAX: Final = 100  # Each takes a pass over the log: hours of work. Past it, 429.
ERASURE_TRIES_MAX: Final = 3  # Then it waits for the next start, and says why.
ERASURE_PASSES_MAX: Final = 8  # Scans until nothing is found; two do, but for outcomes under way.
REQUESTS_KEPT_MAX: Final = 10_000  # Finished privacy requests that can still be asked about.
SEARCHES_WAITING_MAX: Final = 16  # Exports and dry runs that wait for the one under way. Past it, 429.
EXPORT_BYTES_MAX: Final = 256 * 1024 * 1024  # One answer, held in memory; the command line has no bound.
WAIT_SECONDS_MAX: Final = 600.0  # What `?wait=true` waits; then the answer says how far it is.

# --- model segments ---
CLUSTER_PEOPLE_MIN: Final = 50  # Among fewer, any split is chance, and means would tell of single people.
CLUSTER_PEOPLE_MAX: Final = 1_000_000  # Scores of all are held: 128 MiB at 32 of them. Past it, fit a sample.
CLUSTER_VARIABLES_MAX: Final = (
    4_096  # Their correlations are decomposed: its time grows with the cube, 10 s here.
)
CLUSTER_SAMPLE_MAX: Final = 10_000  # Visitors that each number of clusters is tried on, with every bootstrap.
CLUSTER_DENSITY_SAMPLE_MAX: Final = 6_000  # DBSCAN may hold all pairs: 8 bytes each, 288 MiB.
CLUSTER_JUDGES_MAX: Final = 4_000  # Visitors in a silhouette, by pairs: its standard error is below 0.01.

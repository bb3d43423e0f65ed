/* The life of a session row, for the model checker SPIN. docs/durability.md explains it; `make model` checks it.

A transition is one conditional write to the row or to its pieces. Each has the name of the write in
layers/voice/pi_voice/adapters/dynamodb/, in a line "Transition `name`" before its inline.

A process is one request, one webhook, one message or one run of the sweeper. A write has one of these outcomes:
  - it takes effect, or its condition refuses it, and the process hears which;
  - it takes effect, or not, and the process gets a timeout;
  - the process gets a timeout, and the write takes effect later: after other writes, or after its process has ended.
After every step the process may be killed. A budget (FAULTS) bounds the timeouts,
the kills and the failures of LiveKit, Gemini and the queue, all together.

Time is abstract. Nothing says how long a step takes; only these instants matter, and each may come at any step:
the tokens end, the session is abandoned (its grace period is over), the time limit ends. A duty without such an instant
may become due at any step, so a claim is repeated even while its first process is still working (a slow process).

A scenario (-D) says which processes run. BUG_* breaks one rule; then the scenario must find a violation. */

#ifndef FAULTS
#define FAULTS 2                 /* writes without an answer, killed processes, failures of LiveKit, Gemini and the queue */
#endif
#ifndef JOINS
#define JOINS 0                  /* times that a person joins the room */
#endif
#ifndef MAX_TRIES
#define MAX_TRIES 2              /* claims of one duty */
#endif
#ifndef SWEEPERS
#define SWEEPERS 1
#endif
#ifndef SAVED
#define SAVED 1                  /* turns saved before the scenario begins */
#endif
#define TURNS 2
#define MAX_RUNS 3               /* of one call of a server tool */
#define REPEATS 1                /* a write or a request that had no response is sent once more */
#define IDS 4                    /* transcripts that are in use at a time, from 1; a lost one is garbage */
#define ANY 15                   /* a condition that a write does not have */
#define NOT_CLOSED 0

/* ---- What is stored ---- */

mtype = { NO_ROW, ACTIVE, COMPLETED, FAILED, DELETED };
mtype row = NO_ROW;              /* status; DELETED is the tombstone */
bool content;                    /* the row has attributes of the call */
byte saved;                      /* checkpoint_turns */
bit expiry;                      /* expires_at: 0 as created, 1 as renewed */
bool hung_up;                    /* hung_up_at is set */
bool joined;                     /* a join is known, so the time limit has an end */
byte transcript;                 /* transcript_id */

mtype = { NONE, PENDING, TRIED, SUCCEEDED, GIVEN_UP };
mtype extraction = NONE;         /* TRIED is pending, after a first attempt */

/* Duties. The sweeper finds the row while it has one. */
#define END_CALL 0
#define HANG_UP 1
#define CLOSE_ROOM 2
#define EXTRACT 3
#define DELETE_AGAIN 4
#define SEND_EVENTS 5
bool duty[6];
bool has_due_at = true;          /* of a row with duties; without it, the sweeper does not find the row */
byte put_offs;                   /* unreadable_tries */
byte tries[6];
bit end_call_for;                /* the expiry that end_call was set for */
byte close_when;                 /* when close_room is due: NOW, SOON, AT_END of the tokens, or when it is no longer KEPT */
#define NOW 1
#define SOON 2
#define AT_END 3
#define KEPT 4
bool kept;                       /* the completing client kept the room, and its time has not come */

/* Events of the session: owed_events is a set of them, because each happens once in a run. */
#define STARTED 1
#define ENDED 2                  /* session.completed or session.failed */
#define EXTRACTED 4              /* extraction.succeeded or extraction.failed */
byte owed;                       /* owed_events */
bool started;                    /* started_at is set */

byte checkpoints;                /* turns in checkpoint pieces */
bool called;                     /* tool_calls is 1 */
bool call_piece;                 /* the piece of that call is stored */
#ifdef RUNNING
byte runs;                       /* runs of that call, if its tool is on a server and its answer is not recorded; else 0 */
byte answer_of;                  /* the run whose answer is recorded; 0 without one */
#endif
byte pieces[IDS];                /* turns in transcript pieces, by transcript id */
bool expiring[IDS];              /* these pieces have the TTL of a loser */
bool held[IDS];                  /* by a process */
bool in_use[IDS];                /* by a process, a write in flight or the row */
bool garbage;                    /* there are pieces of other ids */

/* A process holds the duties that it read. `unchanged` has p while no one has written them since. */
#define CREATE 0
#define CLIENT 1
#define STOP 2
#define WEBHOOK 3
#define WORKER 4
#define UNREADABLE 4             /* runs without the worker */
#define SWEEP 5                  /* and SWEEP + 1 */
#define DISPATCHER 6             /* runs with one sweeper */
#define LATE 7
#define NO_COPY 8                /* of a process that does not read the duties */
byte unchanged;

/* `same_close` has p while close_room has the time and the tries that p gave it. */
byte same_close;

#define BIT(p) ((1 << (p)) & 255)
#define HAS(set, p) ((set & BIT(p)) != 0)
#define DROP(p) unchanged = unchanged & ~BIT(p); same_close = same_close & ~BIT(p)

/* ---- What is outside ---- */

bool tokens_ended;
bool abandoned;
bool time_limit_ended;
bool tokens_issued;
bool room_open;                  /* with a person in it, who does not leave */
byte joins = JOINS;
byte webhooks;                   /* sent by LiveKit, not received yet */
bool queue;                      /* has a message for this session */
bool event_queue;                /* likewise, the queue of sessions that owe events */
byte running;                    /* requests that may still create the row or put pieces */
byte faults = FAULTS;            /* of all kinds together that may still happen */

/* ---- What the properties remember ---- */

byte acknowledged;               /* turns */
bool call_acknowledged;          /* the tool call */
byte answer_acknowledged;        /* the run whose answer a page has got; 0 without one */
bool ended;                      /* the session was completed or failed */
bool deleted;                    /* delete took effect */
byte happened;                   /* events that were owed at any time */
byte dispatched;                 /* events that have their deliveries */
bool logged_unreadable;
bool logged[6];                  /* duty_given_up was logged, or the extraction says why it failed */
#ifdef POISON
byte performed;                  /* times that a duty was performed which kills its process */
#endif

#define IS_PENDING (extraction == PENDING || extraction == TRIED)
#define IS_ONGOING (row == ACTIVE && !hung_up)
#ifdef BUG_KEPT_ROOM_CLOSED
#define IS_OVER (!IS_ONGOING)
#else
#define IS_OVER (!IS_ONGOING && !kept)
#endif

/* ---- The transitions. Each sets `ok` to whether its condition held. ---- */

bool ok;

inline duties_written(p) {       /* the copies of all others are old now */
  unchanged = BIT(p); has_due_at = true
}

inline set_duty(d) { duty[d] = true; tries[d] = 0 }

inline remove_duty(d) { duty[d] = false; tries[d] = 0 }

inline close_room_written(p) { same_close = BIT(p) }

/* Times are seconds, so another process may have given the duty the same time: then they cannot tell them apart. */
inline set_close_room(when, p) {
#ifdef ROOM
  if
  :: duty[CLOSE_ROOM] && tries[CLOSE_ROOM] == 0 && close_when == when -> same_close = same_close | BIT(p)
  :: set_duty(CLOSE_ROOM); close_when = when; close_room_written(p)
  fi
#else
  skip
#endif
}

#define READ(p) COPY(p); unchanged = unchanged | BIT(p)
#ifdef BUG_DUTIES_UNCONDITIONAL
#define UNCHANGED(p) true
bool copy[54];
#define COPY(p) copy[p] = duty[0]; copy[9+p] = duty[1]; copy[18+p] = duty[2]; copy[27+p] = duty[3]; copy[36+p] = duty[4]; copy[45+p] = duty[5]
#define WRITE_COPY(p) duty[0] = copy[p]; duty[1] = copy[9+p]; duty[2] = copy[18+p]; duty[3] = copy[27+p]; duty[4] = copy[36+p]; duty[5] = copy[45+p]
#else
#define UNCHANGED(p) HAS(unchanged, p)
#define COPY(p) skip
#define WRITE_COPY(p) skip
#endif

/* A change owes an event, in its own write. */
inline owe(event) {
#ifdef EVENTS
  assert(event != STARTED || (happened & STARTED) == 0);   /* one session.started */
  owed = owed | event; happened = happened | event;
#ifndef BUG_EVENT_WITHOUT_DUTY
  set_duty(SEND_EVENTS);
#endif
#endif
  skip
}

/* The first sign of life. A write that finds other duties than it read is repeated, so their copy is not modeled. */
inline first_sign() {
#ifdef EVENTS
  if
#ifdef BUG_STARTED_BY_EVERY_SIGN
  :: true
#else
  :: !started
#endif
     -> started = true; owe(STARTED); duties_written(NO_COPY)
#ifndef BUG_STARTED_BY_EVERY_SIGN
  :: else
#endif
  fi;
#endif
  skip
}

inline end_session(when, p) {           /* what the ends of a session have in common */
  assert(!ended);                /* one completion */
  ended = true;
  owe(ENDED);
  remove_duty(END_CALL); remove_duty(HANG_UP);
  set_close_room(when, p)
}

/* Transition `create`: put if absent; as failed, if a provider failed. Then no token was issued for its room, which closes
   by itself when its empty timeout ends. */
inline create(status) {
  ok = (row == NO_ROW);
  if
  :: ok && status == ACTIVE -> row = ACTIVE; content = true; set_duty(END_CALL); duties_written(NO_COPY)
  :: ok && status == FAILED -> assert(!ended); ended = true; row = FAILED; content = true; owe(ENDED); duties_written(NO_COPY)
  :: else
  fi
}

/* Transition `save`: if active and no other turn was saved since the read; the piece is in the same transaction. The
   first one is a sign of life. */
inline save(first) {
  ok = (row == ACTIVE && saved == first);
  if
  :: ok -> saved = first + 1; checkpoints = first + 1; first_sign()
  :: else
  fi
}

/* Transition `record_tool_call`: if active, no other call was recorded since the read, and this one is not recorded. The
   piece is in the same transaction. It may be the first sign of life. One call is modeled. */
inline record_tool_call() {
#ifdef BUG_CALL_RECORDED_AFTER_END
  ok = (row != NO_ROW && row != DELETED && !called && !call_piece);
#else
  ok = (row == ACTIVE && !called && !call_piece);
#endif
  if
  :: ok -> called = true; call_piece = true; first_sign()
#ifdef CALLING
     ;
     assert(!ended)              /* the results of a completed session have seen all its calls */
#endif
  :: else
  fi
}

#ifdef RUNNING
/* The call is recorded with its first run. */
inline record_run() {
  record_tool_call();
  if
  :: ok -> runs = 1
  :: else
  fi
}

/* Transition `run_tool_again`: if no other request began a run since the read, and no answer was recorded. */
inline run_tool_again(number) {
  ok = (call_piece && runs == number);
  if
  :: ok -> runs = number + 1
  :: else
  fi
}

/* Transition `finish_tool_call`: if the row is no tombstone, and the run is the latest one. The session may have ended. */
inline finish_tool_call(number) {
#ifdef BUG_ANSWER_OF_EARLIER_RUN
  ok = (row != NO_ROW && row != DELETED && call_piece);
#else
  ok = (row != NO_ROW && row != DELETED && call_piece && runs == number);
#endif
  if
  :: ok ->
     runs = 0;
     assert(answer_acknowledged == 0 || answer_acknowledged == number);   /* an answer that a page has got stays */
     answer_of = number
  :: else
  fi
}
#endif

/* Transition `report_usage`: if the row exists and is no tombstone, and the usage is unchanged. No other write reads the
   usage, so the model only knows that it is content. */
inline report_usage() {
#ifdef BUG_USAGE_INTO_TOMBSTONE
  ok = (row != NO_ROW);
#else
  ok = (row != NO_ROW && row != DELETED);
#endif
  if
  :: ok -> content = true
  :: else
  fi
}

/* Transition `count_renewal`: if active and not hung up. The count itself only refuses, so it is not modeled. */
inline count_renewal() {
  ok = IS_ONGOING
}

/* Transition `renew`: if active and not hung up. The duties stay: the sweeper reads the new expiry. */
inline renew() {
  ok = IS_ONGOING;
  if
  :: ok -> expiry = 1; tokens_ended = false; abandoned = false
  :: else
  fi
}

/* Transition `start`: if active, not hung up and without an earlier sign of life, and the duties are unchanged. */
inline start(p) {
  ok = (IS_ONGOING && !started && UNCHANGED(p));
  if
  :: ok -> started = true; set_duty(HANG_UP); owe(STARTED); duties_written(p)
  :: else
  fi
}

/* Transition `hang_up`: if active and the duties are unchanged. */
inline hang_up(p) {
  ok = (row == ACTIVE && UNCHANGED(p));
  if
  :: ok ->
     hung_up = true; remove_duty(HANG_UP);
     set_close_room(NOW, p);
     duties_written(p)
  :: else
  fi
}

#ifdef DELETING
#define GARBAGE(is_there) garbage = (is_there)
#else
#define GARBAGE(is_there) skip
#endif

/* Transition `put_pieces`: no condition, because each attempt has an id of its own. */
inline put_pieces(id, turns) {
  ok = true;
  if
  :: in_use[id] -> pieces[id] = turns
  :: else -> GARBAGE(true)                  /* its process has ended */
  fi
}

/* Transition `expire_pieces`: if the piece exists. */
inline expire_pieces(id) { ok = (in_use[id] && pieces[id] > 0); expiring[id] = (expiring[id] || ok) }

/* Transition `complete`: if active, the duties are unchanged, and no turn was saved or expiry moved since the read, where
   they matter. A repeated write finds its transcript id in the row. */
#ifdef BUG_COMPLETE_WITHOUT_TURNS
#define SAME_TURNS(turns) true
#else
#define SAME_TURNS(turns) (turns == ANY || turns == saved)
#endif
#ifdef BUG_COMPLETE_WITHOUT_EXPIRY
#define SAME_EXPIRY(at) true
#else
#define SAME_EXPIRY(at) (at == ANY || at == expiry)
#endif
#ifdef BUG_COMPLETE_WITHOUT_STATUS
#define MAY_COMPLETE (row != NO_ROW)
#else
#define MAY_COMPLETE (row == ACTIVE)
#endif
inline complete(id, turns, at, p) {
  ok = (MAY_COMPLETE && UNCHANGED(p) && SAME_TURNS(turns) && SAME_EXPIRY(at));
  if
  :: ok ->
     assert(at == ANY || abandoned);     /* the sweeper does not end a session that was renewed */
     if
     :: at == ANY -> end_session(SOON, p)
#ifdef KEEPING
     :: at == ANY && !hung_up -> kept = true; end_session(KEPT, p)
#endif
     :: else -> end_session(NOW, p)
     fi;
     row = COMPLETED; transcript = id;
#ifdef RESULTS
     extraction = PENDING; set_duty(EXTRACT);
#endif
     duties_written(p)
  :: else -> ok = (row == COMPLETED && transcript == id)
  fi
}

/* Transition `fail`: if active, without saved turns, not renewed since the read, and the duties are unchanged. */
inline fail(at, p) {
  ok = (row == ACTIVE && saved == 0 && SAME_EXPIRY(at) && UNCHANGED(p));
  if
  :: ok -> end_session(NOW, p); row = FAILED; duties_written(p)
  :: else
  fi
}

mtype = { CLAIM, MOVE, REMOVE, ADD, CLOSED_BEFORE_END, CLOSED_AFTER_END };
/* Until the tokens have ended, a person may join again, and the webhook of that join may be lost. So the duty stays, and
   the room is closed once more when nobody can join any more. */
inline room_was_closed(when, p) {
  if
#ifndef BUG_ROOM_CLOSED_ONCE
  :: when == CLOSED_BEFORE_END -> set_duty(CLOSE_ROOM); close_when = AT_END; close_room_written(p)
#endif
  :: else -> remove_duty(CLOSE_ROOM); close_when = 0; close_room_written(p)
  fi
}

/* Transition `save_extraction`: if completed, and neither the extraction nor the duties changed since the read. A room
   that this process closed has the rest of its duty when the tokens have ended. */
inline save_extraction(before, after, closed, p) {
  ok = (row == COMPLETED && extraction == before && UNCHANGED(p));
  if
  :: ok ->
     extraction = after;
     if
     :: after == SUCCEEDED || after == GIVEN_UP -> remove_duty(EXTRACT); owe(EXTRACTED)
     :: else
     fi;
     if
     :: closed != NOT_CLOSED && HAS(same_close, p) -> room_was_closed(closed, p)
     :: else
     fi;
     duties_written(p)
  :: else
  fi
}

/* Transition `clear_owed_events`: if it is no tombstone, and neither the owed events nor the duties changed since the read.
   Only the events that were dispatched are removed; the duty goes with the last one. */
inline clear_owed_events(sent, before, p) {
#ifdef BUG_CLEAR_ALL
  ok = (row != NO_ROW && row != DELETED);
#define CLEARED owed
#else
  ok = (row != NO_ROW && row != DELETED && owed == before && UNCHANGED(p));
#define CLEARED sent
#endif
  if
  :: ok ->
     assert((owed & CLEARED & ~dispatched) == 0);       /* nothing is cleared that was not dispatched */
     owed = owed & ~CLEARED;
     if
     :: owed == 0 -> remove_duty(SEND_EVENTS)
     :: else
     fi;
     duties_written(p)
  :: else
  fi
}

/* Transition `merge_event`: if the row exists and is no tombstone. The response has the new row. */
inline merge_event(p) {
#ifdef BUG_MERGE_INTO_TOMBSTONE
  ok = (row != NO_ROW);
#else
  ok = (row != NO_ROW && row != DELETED);
#endif
  if
  :: ok -> joined = true; content = true; READ(p)
  :: else
  fi
}

/* Transition `set_duties`: claim, move, remove or add a duty, if the row exists and its duties are unchanged. */
inline set_duties(d, change, p) {
  ok = (row != NO_ROW && UNCHANGED(p));
  if
  :: ok ->
     WRITE_COPY(p);
     if
     :: change == CLAIM -> tries[d] = tries[d] + (tries[d] < MAX_TRIES); if :: d == CLOSE_ROOM -> close_room_written(p) :: else fi
     :: change == MOVE -> end_call_for = expiry; tries[d] = 0
     :: change == REMOVE -> remove_duty(d); if :: d == CLOSE_ROOM -> close_when = 0; close_room_written(p) :: else fi
     :: change == ADD -> if :: d == CLOSE_ROOM -> set_close_room(NOW, p) :: else -> set_duty(d) fi
     :: change == CLOSED_BEFORE_END || change == CLOSED_AFTER_END -> room_was_closed(change, p)
     fi;
     duties_written(p)
  :: else
  fi
}

/* Transition `put_off`: if due_at is as it was read. A version of the code that cannot read a row moves its due time, and
   removes it in the end; these are two writes. */
inline put_off(for_good, p) {
  ok = (row != NO_ROW && has_due_at && HAS(unchanged, p) && (put_offs == MAX_TRIES) == for_good);
  if
  :: ok && for_good -> has_due_at = false
  :: ok && !for_good -> put_offs++
  :: else
  fi
}

/* Transition `delete`: if the row exists and is not active. The tombstone replaces the row. */
inline delete() {
  ok = (row == COMPLETED || row == FAILED || row == DELETED);
  if
  :: ok ->
     row = DELETED; deleted = true; content = false; kept = false;
     saved = 0; called = false; expiry = 0; hung_up = false; joined = false; transcript = 0; extraction = NONE;
     owed = 0; started = false;
     remove_duty(EXTRACT); remove_duty(SEND_EVENTS);
     set_close_room(NOW, NO_COPY);
#ifndef BUG_NO_DELETE_AGAIN
     set_duty(DELETE_AGAIN);
#endif
     duties_written(NO_COPY)
  :: else
  fi
}

/* Transition `delete_pieces`: delete all pieces of the partition. */
inline delete_pieces() {
  ok = true; checkpoints = 0; call_piece = false; garbage = false;
  pieces[1] = 0; pieces[2] = 0; pieces[3] = 0; expiring[1] = false; expiring[2] = false; expiring[3] = false
}

/* Transition `forget`: if it is a tombstone and its duties are unchanged: the one that was done is the last. */
inline forget(p) {
  ok = (row == DELETED && UNCHANGED(p));
  if
  :: ok ->
     row = NO_ROW;
     remove_duty(CLOSE_ROOM); remove_duty(DELETE_AGAIN); close_when = 0;
     duties_written(NO_COPY)
  :: else
  fi
}

/* ---- Sending a write ---- */

mtype = { IDLE, OK, REFUSED, TIMEOUT };
mtype = { L_CREATE, L_SAVE, L_CALL, L_USAGE, L_COUNT_RENEWAL, L_RENEW, L_HANG_UP, L_PUT, L_EXPIRE, L_COMPLETE, L_FAIL, L_SAVE_EXTRACTION,
          L_MERGE, L_SET_DUTIES, L_PUT_OFF, L_DELETE, L_DELETE_PIECES, L_FORGET, L_START, L_CLEAR, L_RUN, L_RUN_AGAIN, L_FINISH };
mtype late = IDLE;               /* the write that is still in flight after its process got a timeout */
byte late_a, late_b, late_c;

#define MAYBE_KILLED if :: true :: faults > 0 -> faults--; goto killed fi

#define KEEP_FOR_LATE(set, p) if :: HAS(set, p) -> set = set | BIT(LATE) :: else fi

/* Send a write for process p. `kind` and a, b, c describe it, if it takes effect late. */
#define WRITE(p, transition, kind, a, b, c)                                               \
  atomic {                                                                                \
    if                                                                                    \
    :: transition;                                                                        \
       if                                                                                 \
       :: ok -> answer = OK                                                               \
       :: !ok -> answer = REFUSED                                                         \
       :: faults > 0 -> faults--; answer = TIMEOUT; if :: ok -> DROP(p) :: else fi        \
       fi;                                                                                \
       ok = false                                                                         \
    :: faults > 0 -> faults--; answer = TIMEOUT                                           \
    :: faults > 0 && late == IDLE ->                                                      \
       faults--; late = kind; late_a = a; late_b = b; late_c = c;                         \
       KEEP_FOR_LATE(unchanged, p); KEEP_FOR_LATE(same_close, p); answer = TIMEOUT                                   \
    fi;                                                                                   \
    MAYBE_KILLED                                                                          \
  }

/* Change a duty that was done, again if another one changed meanwhile. close_room and send_events stay if they were set
   again, which resets their tries. A tombstone
   goes with its last duty, in one write: without duties the sweeper would not find it. */
inline settle(d, change, p) {
  do
  :: atomic {
       duty[d] && (d != CLOSE_ROOM || HAS(same_close, p)) && (d != SEND_EVENTS || tries[d] > 0) -> READ(p);
       is_last = (row == DELETED && duty[CLOSE_ROOM] + duty[DELETE_AGAIN] == 1 && change != CLOSED_BEFORE_END)
     };
     if
#ifndef BUG_FORGET_SEPARATELY
     :: is_last -> WRITE(p, forget(p), L_FORGET, 0, 0, 0)
#endif
     :: else -> WRITE(p, set_duties(d, change, p), L_SET_DUTIES, d, change, 0)
     fi;
     if
     :: answer == REFUSED
     :: else -> break
     fi
  :: else -> break
  od;
#ifdef BUG_FORGET_SEPARATELY
  if
  :: is_last -> WRITE(p, forget(p), L_FORGET, 0, 0, 0)
  :: else
  fi;
#endif
  is_last = false
}

/* An id ends with its process, unless the row has it or a write with it is still in flight. Its pieces are garbage. */
inline free(id) {
  if
  :: in_use[id] && !held[id] && transcript != id &&
     !(late_a == id && (late == L_PUT || late == L_EXPIRE || late == L_COMPLETE)) ->
     GARBAGE(garbage || pieces[id] > 0); pieces[id] = 0; expiring[id] = false; in_use[id] = false
  :: else
  fi
}

/* The write that was still in flight takes effect, after anything that happened meanwhile. */
active proctype network() {
end:
  do
  :: atomic {
       late != IDLE ->
       if
       :: late == L_CREATE -> create(late_a)
       :: late == L_SAVE -> save(late_a)
       :: late == L_CALL -> record_tool_call()
       :: late == L_USAGE -> report_usage()
       :: late == L_COUNT_RENEWAL -> count_renewal()
       :: late == L_RENEW -> renew()
       :: late == L_HANG_UP -> hang_up(LATE)
       :: late == L_PUT -> put_pieces(late_a, late_b)
       :: late == L_EXPIRE -> expire_pieces(late_a)
       :: late == L_COMPLETE -> complete(late_a, late_b, late_c, LATE)
       :: late == L_FAIL -> fail(late_a, LATE)
       :: late == L_SAVE_EXTRACTION -> save_extraction(late_a, late_b, late_c, LATE)
       :: late == L_MERGE -> merge_event(LATE)
       :: late == L_SET_DUTIES -> set_duties(late_a, late_b, LATE)
       :: late == L_PUT_OFF -> put_off(late_a, LATE)
       :: late == L_DELETE -> delete()
       :: late == L_DELETE_PIECES -> delete_pieces()
       :: late == L_FORGET -> forget(LATE)
#ifdef EVENTS
       :: late == L_START -> start(LATE)
       :: late == L_CLEAR -> clear_owed_events(late_a, late_b, LATE)
#endif
#ifdef RUNNING
       :: late == L_RUN -> record_run()
       :: late == L_RUN_AGAIN -> run_tool_again(late_a)
       :: late == L_FINISH -> finish_tool_call(late_a)
#endif
       fi;
       ok = false; late = IDLE; late_a = 0; late_b = 0; late_c = 0; DROP(LATE);
       free(1); free(2); free(3)
     }
  od
}

/* ---- Requests, webhooks and messages ---- */

#define MAY_REPEAT repeats < REPEATS -> repeats++

/* Close the room. A person can join again until the tokens end, so the clock is read before the close. */
inline close_room() {
  atomic {
    if
    :: assert(!kept); room_open = false;
       if
       :: tokens_ended -> closed = CLOSED_AFTER_END
       :: closed = CLOSED_BEFORE_END        /* when the clock was read, perhaps long before the close */
       fi
    :: faults > 0 -> faults--; closed = NOT_CLOSED
    fi;
    MAYBE_KILLED
  };
#ifdef BUG_CLOCK_READ_AFTER_CLOSE
  atomic { if :: tokens_ended && closed != NOT_CLOSED -> closed = CLOSED_AFTER_END :: else fi }
#endif
}

/* Put a transcript, then complete. `all`: the client sent it; else it is made of the checkpoints. */
inline end_with_transcript(p, all, at) {
  do
  :: atomic {
       row == ACTIVE && (at == ANY || at == expiry) ->
       READ(p);
       held[id] = false; free(id);
       id = 1; do :: in_use[id] -> id++ :: else -> break od;
       held[id] = true; in_use[id] = true;
       running = running + 1 - is_writing; is_writing = true;
       if
       :: all -> turns = TURNS; condition = ANY
       :: else -> turns = saved; condition = saved
       fi
     };
#ifndef BUG_FLIP_BEFORE_TRANSCRIPT
     if
     :: turns > 0 -> WRITE(p, put_pieces(id, turns), L_PUT, id, turns, 0)
     :: else
     fi;
     if
     :: turns > 0 && answer == TIMEOUT -> break
     :: else
     fi;
#endif
     do
     :: WRITE(p, complete(id, condition, at, p), L_COMPLETE, id, condition, at);
        if
        :: answer == OK -> won = true; break
        :: answer == TIMEOUT -> if :: MAY_REPEAT :: break fi
        :: answer == REFUSED ->
           atomic {
             if
             :: row == ACTIVE && SAME_TURNS(condition) && SAME_EXPIRY(at) -> READ(p)   /* only the duties changed */
             :: else -> break
             fi
           };
#ifdef BUG_EXPIRE_WHEN_REFUSED
           WRITE(p, expire_pieces(id), L_EXPIRE, id, 0, 0)
#endif
        fi
     od;
#ifdef BUG_FLIP_BEFORE_TRANSCRIPT
     if
     :: won && turns > 0 -> WRITE(p, put_pieces(id, turns), L_PUT, id, turns, 0)
     :: else
     fi;
#endif
     if
     :: !won && answer == REFUSED ->
        if
        :: turns > 0 -> WRITE(p, expire_pieces(id), L_EXPIRE, id, 0, 0)
        :: else
        fi;
        if
        :: all -> break
        :: else                             /* read the checkpoints again */
        fi
     :: else -> break
     fi
  :: else -> break
  od;
  atomic { running = running - is_writing; is_writing = false; held[id] = false; free(id); id = 0; turns = 0; condition = 0; repeats = 0; answer = 0 }
}

/* POST /sessions. The room is there; Gemini may fail, before or after the row is written. */
proctype create_session() {
  byte answer;
  running++;
  WRITE(CREATE, create(ACTIVE), L_CREATE, ACTIVE, 0, 0);
  if
  :: answer == OK ->
     if
     :: tokens_issued = true; goto killed
     :: atomic { faults > 0 -> faults-- }
     fi
  :: else                                   /* a timeout: the write may take effect later */
  fi;
  WRITE(CREATE, create(FAILED), L_CREATE, FAILED, 0, 0);
  if
  :: answer == REFUSED ->
     READ(CREATE);
     WRITE(CREATE, fail(0, CREATE), L_FAIL, 0, 0, 0)
  :: else
  fi;
killed:
  atomic { answer = 0; DROP(CREATE); running-- }
}

/* POST .../transcript: save one turn after the other. A repeated request finds that its turn was saved. */
proctype save_turns() {
  byte answer, repeats, first;
  do
  :: atomic { row == ACTIVE && saved == acknowledged && saved < TURNS -> first = saved };
     WRITE(NO_COPY, save(first), L_SAVE, first, 0, 0);
     atomic {
       if
       :: answer == OK -> acknowledged = first + 1
       :: answer == REFUSED
       :: answer == TIMEOUT -> if :: MAY_REPEAT :: goto killed fi
       fi;
       answer = 0; first = 0
     }
  :: atomic { row == ACTIVE && saved > acknowledged -> acknowledged = saved }
  :: break                                  /* the client saves no more */
  od;
killed:
  atomic { answer = 0; repeats = 0; first = 0 }
}

/* POST .../tool-calls. A repeated request finds the call by its id. */
proctype call_tool() {
  byte answer, repeats;
  do
  :: row == ACTIVE && !call_piece ->
     WRITE(NO_COPY, record_tool_call(), L_CALL, 0, 0, 0);
     if
     :: answer == OK -> call_acknowledged = true; break
     :: answer == REFUSED -> break
     :: answer == TIMEOUT -> if :: MAY_REPEAT :: break fi
     fi
  :: atomic { call_piece && row != DELETED && row != NO_ROW -> call_acknowledged = true }; break
  :: break
  od;
killed:
  atomic { answer = 0; repeats = 0 }
}

#ifdef RUNNING
/* POST .../tool-calls for a tool on a server; a page repeats the request. Time is abstract, so a run may be begun again
   while the one before still works. */
proctype run_tool() {
  byte answer, number;
  do
  :: atomic { runs == 0 && answer_of > 0 && row != DELETED && row != NO_ROW -> answer_acknowledged = answer_of }; break
  :: number == 0 && row == ACTIVE && !call_piece ->
     WRITE(NO_COPY, record_run(), L_RUN, 0, 0, 0);
     if
     :: answer == OK -> number = 1
     :: else -> break
     fi
  :: atomic { number == 0 && row == ACTIVE && runs > 0 && runs < MAX_RUNS -> number = runs };
     WRITE(NO_COPY, run_tool_again(number), L_RUN_AGAIN, number, 0, 0);
     if
     :: answer == OK -> number++
     :: else -> break
     fi
  :: number > 0 ->                             /* the endpoint has answered */
     WRITE(NO_COPY, finish_tool_call(number), L_FINISH, number, 0, 0);
     if
     :: answer == OK -> answer_acknowledged = number
     :: else
     fi;
     break
  :: break
  od;
killed:
  atomic { answer = 0; number = 0 }
}
#endif

/* POST .../usage, at any time. */
proctype report_usage_once() {
  byte answer;
  WRITE(NO_COPY, report_usage(), L_USAGE, 0, 0, 0);
killed:
  answer = 0
}

/* POST .../renew. */
proctype renew_session() {
  byte answer;
  WRITE(NO_COPY, count_renewal(), L_COUNT_RENEWAL, 0, 0, 0);
  if
  :: answer == OK
  :: answer != OK -> goto killed           /* nothing is issued */
  fi;
  WRITE(NO_COPY, renew(), L_RENEW, 0, 0, 0);
killed:
  answer = 0
}

/* POST .../complete, with a transcript or without; close the room and extract while the caller waits. */
proctype complete_session() {
  byte answer, repeats, requests, id, turns, condition, closed, after;
  bool with_transcript, is_writing, won, is_last;
  do
  :: atomic { requests <= REPEATS && row == ACTIVE -> requests++ };
#ifdef SAVING
     if
     :: with_transcript = true
     :: true                                /* complete from the checkpoints */
     fi;
#endif
     end_with_transcript(CLIENT, with_transcript, ANY);
     if
     :: won -> break
     :: else
     fi
  :: goto killed                            /* the client sends no more, or it hears that the session has ended */
  od;
#ifdef ROOM
  if
  :: kept
  :: !kept -> close_room()
  fi;
#endif
  do
  :: atomic { row == COMPLETED && extraction == PENDING ->
       if
       :: after == 0 ->
          if
          :: after = SUCCEEDED
          :: faults > 0 -> faults--; after = TRIED; queue = true
          :: faults > 1 -> faults = faults - 2; after = TRIED      /* the queue fails as well */
          fi
       :: else
       fi
     };
     WRITE(CLIENT, save_extraction(PENDING, after, closed, CLIENT), L_SAVE_EXTRACTION, PENDING, after, closed);
     if
     :: answer == REFUSED -> READ(CLIENT)
     :: else -> break
     fi
  :: row == COMPLETED && extraction == NONE && closed != NOT_CLOSED ->
     settle(CLOSE_ROOM, closed, CLIENT);
     break
  :: else -> break
  od;
killed:
  atomic {
    running = running - is_writing; is_writing = false; held[id] = false; free(id); won = false; with_transcript = false;
    answer = 0; repeats = 0; requests = 0; id = 0; turns = 0; condition = 0; closed = 0; after = 0;
    DROP(CLIENT)
  }
}

/* POST .../stop. */
proctype stop_session() {
  byte answer, repeats, closed;
  bool is_last;
  do
  :: atomic { row == ACTIVE -> READ(STOP) };
     WRITE(STOP, hang_up(STOP), L_HANG_UP, 0, 0, 0);
     if
     :: answer == OK ->
        close_room();
        if
        :: closed != NOT_CLOSED ->
           settle(CLOSE_ROOM, closed, STOP)
        :: else
        fi;
        break
     :: answer == REFUSED
     :: answer == TIMEOUT -> if :: MAY_REPEAT :: break fi
     fi
  :: break
  od;
killed:
  atomic { answer = 0; repeats = 0; closed = 0; DROP(STOP) }
}

/* DELETE /sessions/{session_id}. */
proctype delete_session() {
  byte answer, repeats;
  do
  :: row == COMPLETED || row == FAILED ->
     WRITE(NO_COPY, delete(), L_DELETE, 0, 0, 0);
     if
     :: answer == OK -> WRITE(NO_COPY, delete_pieces(), L_DELETE_PIECES, 0, 0, 0); break
     :: answer == REFUSED -> break
     :: answer == TIMEOUT -> if :: MAY_REPEAT :: break fi
     fi
  :: row == DELETED && repeats > 0 -> WRITE(NO_COPY, delete_pieces(), L_DELETE_PIECES, 0, 0, 0); break
  :: break
  od;
killed:
  atomic { answer = 0; repeats = 0 }
}

/* A person joins, which opens the room. LiveKit sends a webhook a few times, and then gives up. */
proctype person() {
end:
  do
  :: atomic {
       joins > 0 && tokens_issued && !tokens_ended ->
       joins--; room_open = true;
       if
       :: webhooks++
#ifndef WEBHOOKS_ARRIVE
       :: true
#endif
       fi
     }
  od
}

inline decide_again() {
  atomic {
    READ(WEBHOOK);
    is_over = IS_OVER; is_ongoing = IS_ONGOING;
    answer = (row == NO_ROW || row == DELETED -> REFUSED : OK)
  }
}

/* POST /webhooks/livekit: merge a join, then set the time limit, or close a room that should not be open. */
proctype livekit_webhook() {
  byte answer, closed;
  bool is_over, is_ongoing, is_done, is_last;
end:
  do
  :: atomic { webhooks > 0 -> webhooks-- };
     WRITE(WEBHOOK, merge_event(WEBHOOK); is_over = IS_OVER; is_ongoing = IS_ONGOING, L_MERGE, 0, 0, 0);
     do
     :: answer == TIMEOUT -> break
     :: answer == REFUSED && row == DELETED ->                 /* the tombstone has the duty already */
        close_room(); is_done = (closed != NOT_CLOSED); closed = 0; break
     :: answer == REFUSED && row != DELETED -> is_done = true; break
     :: answer == OK && !is_over && !is_ongoing -> is_done = true; break      /* the room is kept */
     :: answer == OK && is_ongoing ->
#ifdef EVENTS
        if
        :: !started -> WRITE(WEBHOOK, start(WEBHOOK), L_START, 0, 0, 0)
        :: else -> WRITE(WEBHOOK, set_duties(HANG_UP, ADD, WEBHOOK), L_SET_DUTIES, HANG_UP, ADD, 0)
        fi;
#else
        WRITE(WEBHOOK, set_duties(HANG_UP, ADD, WEBHOOK), L_SET_DUTIES, HANG_UP, ADD, 0);
#endif
        if
        :: answer == OK -> is_done = true; break
        :: answer == REFUSED -> decide_again()
        :: answer == TIMEOUT -> break
        fi
     :: answer == OK && is_over ->
        WRITE(WEBHOOK, set_duties(CLOSE_ROOM, ADD, WEBHOOK), L_SET_DUTIES, CLOSE_ROOM, ADD, 0);
        if
        :: answer == OK ->
           close_room();
           if
           :: closed != NOT_CLOSED ->
              is_done = true;
              settle(CLOSE_ROOM, closed, WEBHOOK)
           :: else
           fi;
           break
        :: answer == REFUSED -> decide_again()
        :: answer == TIMEOUT -> break
        fi
     od;
killed:
     atomic {
       if
       :: !is_done -> webhooks++                               /* LiveKit sends it again */
#ifndef WEBHOOKS_ARRIVE
       :: !is_done
#endif
       :: else
       fi;
       answer = 0; closed = 0; is_over = false; is_ongoing = false; is_done = false; DROP(WEBHOOK)
     }
  od
}

/* The queue's worker. A message whose function fails comes again, or goes to the dead-letter queue. */
proctype extract_results() {
  byte answer, before, after;
end:
  do
  :: atomic { queue -> queue = false; if :: row == COMPLETED && IS_PENDING -> READ(WORKER); before = extraction :: else fi };
     if
     :: before != 0 ->
        if
        :: after = SUCCEEDED
        :: atomic { faults > 0 -> faults--; if :: after = TRIED :: after = GIVEN_UP fi }
        fi;
        WRITE(WORKER, save_extraction(before, after, NOT_CLOSED, WORKER), L_SAVE_EXTRACTION, before, after, NOT_CLOSED)
     :: else
     fi;
     goto done;
killed:
     answer = TIMEOUT;
done:
     atomic {
       if
       :: answer == TIMEOUT || answer == REFUSED || after == TRIED -> queue = true
       :: answer == TIMEOUT                 /* that was its last delivery */
       :: else
       fi;
       answer = 0; before = 0; after = 0; DROP(WORKER)
     }
  od
}

/* The queue's other worker: it makes the deliveries of all events that it read, then clears these. A message may come at
   any step, because the sweeper sends one at any step, so those of the requests are not modeled. */
proctype dispatch_events() {
  byte answer, sent, before;
end:
  do
  :: atomic {
       event_queue -> event_queue = false;
       if
       :: row != NO_ROW && row != DELETED && owed != 0 -> READ(DISPATCHER); sent = owed; before = owed
       :: else
       fi
     };
     if
     :: sent != 0 ->
#ifndef BUG_CLEAR_BEFORE_DISPATCH
        atomic { dispatched = dispatched | sent; MAYBE_KILLED };
#endif
        do
        :: WRITE(DISPATCHER, clear_owed_events(sent, before, DISPATCHER), L_CLEAR, sent, before, 0);
           if
           :: answer == REFUSED ->
              atomic {
                if
                :: row != NO_ROW && row != DELETED && (owed & sent) != 0 -> READ(DISPATCHER); before = owed
                :: else -> break
                fi
              }
           :: else -> break
           fi
        od;
#ifdef BUG_CLEAR_BEFORE_DISPATCH
        dispatched = dispatched | sent
#endif
     :: else
     fi;
     goto done;
killed:
     answer = TIMEOUT;
done:
     atomic {
       if
       :: answer == TIMEOUT -> event_queue = true
       :: answer == TIMEOUT                 /* that was its last delivery */
       :: else
       fi;
       answer = 0; sent = 0; before = 0; DROP(DISPATCHER)
     }
  od
}

/* ---- The sweeper ---- */

#define DUE_END_CALL     (has_due_at && duty[END_CALL] && (abandoned || end_call_for != expiry))
#define DUE_HANG_UP      (has_due_at && duty[HANG_UP] && time_limit_ended)
#define DUE_CLOSE_ROOM   (has_due_at && duty[CLOSE_ROOM] && (close_when != AT_END || tokens_ended) && (close_when != KEPT || !kept))
#define DUE_EXTRACT      (has_due_at && duty[EXTRACT])
#define DUE_SEND_EVENTS  (has_due_at && duty[SEND_EVENTS])
#define DUE_DELETE_AGAIN (has_due_at && duty[DELETE_AGAIN] && late == IDLE && running == 0)

proctype sweep(byte p) {
  byte d, answer, repeats, id, turns, condition, closed, at, before;
  bool is_writing, won, is_last, is_exhausted, is_renewed;
end:
  do
  :: atomic {
       if
       :: DUE_END_CALL -> d = END_CALL
       :: DUE_HANG_UP -> d = HANG_UP
       :: DUE_CLOSE_ROOM -> d = CLOSE_ROOM
       :: DUE_EXTRACT -> d = EXTRACT
       :: DUE_DELETE_AGAIN -> d = DELETE_AGAIN
#ifdef EVENTS
       :: DUE_SEND_EVENTS -> d = SEND_EVENTS
#endif
       fi;
       READ(p); is_exhausted = (tries[d] == MAX_TRIES)
     };
#ifdef BUG_NO_CLAIM
     at = expiry;
#else
     WRITE(p, set_duties(d, CLAIM, p); at = expiry; is_renewed = !abandoned, L_SET_DUTIES, d, CLAIM, 0);
     if
     :: answer == OK
     :: else -> goto killed                 /* another process has it, or it is due again later */
     fi;
#endif
#ifdef BUG_EXPIRY_READ_AFTER_CLAIM
     at = expiry;
#endif
     if
     :: is_exhausted && d == EXTRACT ->
        before = extraction;
        WRITE(p, save_extraction(before, GIVEN_UP, NOT_CLOSED, p), L_SAVE_EXTRACTION, before, GIVEN_UP, NOT_CLOSED);
        goto killed
     :: is_exhausted && d != EXTRACT ->
#ifndef BUG_LOG_AFTER_GIVING_UP
        logged[d] = true;
#endif
        settle(d, REMOVE, p);
        logged[d] = true;
        goto killed
     :: else
     fi;
#ifdef POISON
     atomic { performed++; assert(performed <= MAX_TRIES); goto killed };
#endif
     if
     :: d == END_CALL && row != ACTIVE -> settle(END_CALL, REMOVE, p)
     :: d == END_CALL && row == ACTIVE && is_renewed -> settle(END_CALL, MOVE, p)
     :: d == END_CALL && row == ACTIVE && !is_renewed ->
        if
        :: saved == 0 -> WRITE(p, fail(at, p), L_FAIL, at, 0, 0)
        :: else -> end_with_transcript(p, false, at)
        fi
     :: d == HANG_UP || d == CLOSE_ROOM ->
        if
        :: d == HANG_UP ->
           WRITE(p, hang_up(p), L_HANG_UP, 0, 0, 0);
           if
           :: answer == OK
           :: else -> goto killed
           fi
        :: else
        fi;
        close_room();
        if
        :: closed != NOT_CLOSED -> settle(CLOSE_ROOM, closed, p)
        :: else
        fi
     :: d == EXTRACT ->                     /* save_extraction removes it */
        atomic {
          if
          :: queue = true
          :: faults > 0 -> faults--
          fi;
          MAYBE_KILLED
        }
#ifdef BUG_EXTRACT_DONE_WHEN_QUEUED
        ;
        settle(EXTRACT, REMOVE, p)
#endif
     :: d == SEND_EVENTS ->                 /* clear_owed_events removes it */
        atomic {
          if
          :: event_queue = true
          :: faults > 0 -> faults--
          fi;
          MAYBE_KILLED
        }
#ifdef BUG_EVENTS_SENT_WHEN_QUEUED
        ;
        settle(SEND_EVENTS, REMOVE, p)
#endif
     :: d == DELETE_AGAIN ->
        WRITE(p, delete_pieces(), L_DELETE_PIECES, 0, 0, 0);
        if
        :: answer == OK -> settle(DELETE_AGAIN, REMOVE, p)
        :: else
        fi
     fi;
killed:
     atomic {
       running = running - is_writing; is_writing = false; held[id] = false; free(id); won = false; is_last = false;
       is_exhausted = false; is_renewed = false; d = 0; answer = 0; repeats = 0; id = 0; turns = 0; condition = 0; closed = 0; at = 0; before = 0;
       DROP(p)
     }
  od
}

/* The sweeper of another version, during a deployment, if it cannot read the row. */
proctype sweep_unreadable() {
  byte answer;
  bool is_exhausted;
end:
  do
  :: atomic {
       has_due_at && (duty[0] || duty[1] || duty[2] || duty[3] || duty[4] || duty[5]) ->
       READ(UNREADABLE); is_exhausted = (put_offs == MAX_TRIES);
#ifndef BUG_LOG_AFTER_PUTTING_OFF
       logged_unreadable = (logged_unreadable || is_exhausted)
#endif
     };
     WRITE(UNREADABLE, put_off(is_exhausted, UNREADABLE), L_PUT_OFF, is_exhausted, 0, 0);
#ifdef BUG_LOG_AFTER_PUTTING_OFF
     logged_unreadable = (logged_unreadable || (is_exhausted && answer == OK));
#endif
killed:
     atomic { answer = 0; is_exhausted = false; DROP(UNREADABLE) }
  od
}

/* ---- Time ---- */

proctype clock() {
end:
  do
#if defined(ROOM)
  :: !tokens_ended -> tokens_ended = true
  :: tokens_ended && !abandoned -> abandoned = true
  :: duty[HANG_UP] && !time_limit_ended -> time_limit_ended = true
  :: kept -> kept = false                   /* an hour and 15 seconds after the creation, before or after the tokens end */
#else
  :: !abandoned -> abandoned = true
#endif
  od
}

/* ---- What must hold ---- */

/* At every moment: no acknowledged turn is lost, and nothing of a deleted session comes back. */
#define TURNS_SAVED     (row != ACTIVE || (saved >= acknowledged && checkpoints == saved))
#define TURNS_COMPLETED (row != COMPLETED || acknowledged == 0 || (pieces[transcript] >= acknowledged && !expiring[transcript]))
#define TURNS_NOT_FAILED (row != FAILED || acknowledged == 0)
#define CALL_KEPT (!call_acknowledged || deleted || (called && call_piece))
active proctype always() {
end:
  if
  :: atomic { !TURNS_SAVED -> assert(TURNS_SAVED) }
  :: atomic { !TURNS_COMPLETED -> assert(TURNS_COMPLETED) }
  :: atomic { !TURNS_NOT_FAILED -> assert(TURNS_NOT_FAILED) }
  :: atomic { !CALL_KEPT -> assert(CALL_KEPT) }
  :: atomic { deleted && content -> assert(!(deleted && content)) }
  fi
}

/* When everything has ended, and the sweeper finds nothing. */
active proctype at_the_end() {
  atomic {
    timeout ->
    assert(has_due_at || logged_unreadable);
    if
    :: !has_due_at -> goto done                                          /* given up: nothing can read the row */
    :: else
    fi;
    assert(row != ACTIVE || logged[END_CALL]);                           /* every session ends */
    assert(!room_open || logged[CLOSE_ROOM] || logged[END_CALL]);        /* no room stays open */
    assert(!(row == COMPLETED && IS_PENDING));                           /* results, or a reason */
    assert(!duty[0] && !duty[1] && !duty[2] && !duty[3] && !duty[4] && !duty[5]);    /* every duty ends */
    assert(deleted || logged[SEND_EVENTS] || (happened & ~dispatched) == 0);         /* every event is sent */
    assert(deleted || logged[SEND_EVENTS] || owed == 0);
    assert(!deleted || row == NO_ROW);                                   /* nothing of a deleted session is left */
    assert(!deleted || logged[DELETE_AGAIN] || !garbage && !call_piece && checkpoints + pieces[1] + pieces[2] + pieces[3] == 0)
  };
done:
  skip
}

/* ---- Scenarios ---- */

init {
  atomic {
#ifdef CREATING
    run create_session();
#else
    row = ACTIVE; content = true; duty[END_CALL] = true; tokens_issued = true;
    room_open = (joins > 0);
#endif
#if defined(SAVING)
    run save_turns();
#elif !defined(CREATING)
    saved = SAVED; checkpoints = SAVED; acknowledged = SAVED;
#if SAVED > 0
    started = true;                       /* session.started was sent */
#endif
#endif
#ifdef CALLING
    run call_tool();
#endif
#ifdef RUNNING
    run run_tool();
    run run_tool();
#endif
#ifdef REPORTING
    run report_usage_once();
#endif
#ifdef RENEWING
    run renew_session();
#endif
#ifdef COMPLETING
    run complete_session();
#endif
#ifdef STOPPING
    run stop_session();
#endif
#ifdef DELETING
    run delete_session();
#endif
#if JOINS > 0
    run person();
    run livekit_webhook();
#endif
#ifdef RESULTS
    run extract_results();
#endif
#ifdef EVENTS
    run dispatch_events();
#endif
    run sweep(SWEEP);
#ifdef UNREADABLE_ROW
    run sweep_unreadable();
#endif
#if SWEEPERS > 1
    run sweep(SWEEP + 1);
#endif
    run clock()
  }
}

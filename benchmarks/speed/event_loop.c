/* The multi-UE offloading environment in scalar C: the baseline that a vectorised simulator has to beat.
 *
 * float32, one thread, one lane after another, from event to event. Every UE keeps the clock time of its next
 * event, so a step handles just the UE whose event comes first (by its index: no tolerance on times), and
 * rates (logs) are computed anew only for the channel whose set of transmitters changes. Path gains are
 * computed once per episode.
 *
 * Compiled by c_loop.py for one size of problem: -DUES= -DCHANNELS= -DPOINTS= (the last point is local).
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define MAX_TASKS 1024
#define RAW_BITS 1204224.0f
#define MIN_POWER 1e-10f
#define MIN_FINISHED 0.8f

enum { FREE, COMPUTING, TRANSMITTING };

typedef struct {
    float frame_time, time_norm, beta, bandwidth, noise, path_loss, max_power;
    float bits[POINTS], front_time[POINTS], front_power[POINTS];
    float tasks_cdf[MAX_TASKS]; /* of the number of tasks of a new episode */
} Model;

typedef struct {
    int32_t tasks_left[UES], total_tasks[UES], mode[UES];
    int32_t point[UES], channel[UES]; /* of the task in flight */
    float time_left[UES], bits_left[UES], distance[UES], gain[UES];
} Lane;

typedef struct {
    int32_t point[UES], channel[UES];
    float power[UES];
} Action;

typedef struct {
    float obs[4 * UES], reward, energy; /* energy and finished: sums over UEs */
    int32_t finished, done, events;     /* events: of this frame, its end being one */
} Output;

/* What lives as long as a frame. Times are on the frame's clock. */
typedef struct {
    float received[UES]; /* W at the base station */
    float event[UES];    /* time of the UE's next event, infinite when free */
    float since[UES];    /* energy is counted up to here */
    float rate[UES];     /* bit/s, while transmitting */
    float settled[CHANNELS]; /* bits_left of the channel's transmitters holds for this time */
    int32_t member[CHANNELS][UES], count[CHANNELS]; /* the transmitters of each channel */
    float energy;
} Frame;

/* log(1 + x) to a few ulp; the quotient undoes the rounding of 1 + x. Faster than log1pf. */
static inline float log1p_fast(float x)
{
    float u = 1.0f + x;
    return u == 1.0f ? x : logf(u) * (x / (u - 1.0f));
}

/* Take off what channel c's transmitters have sent since its rates were set. */
static inline void settle(Frame *f, Lane *s, int c, float now)
{
    float elapsed = now - f->settled[c];
    for (int j = 0; j < f->count[c]; j++) {
        int i = f->member[c][j];
        float left = s->bits_left[i] - f->rate[i] * elapsed;
        s->bits_left[i] = left > 0.0f ? left : 0.0f;
    }
    f->settled[c] = now;
}

/* Rates and next events of the transmitters of a settled channel. */
static inline void set_rates(Frame *f, const Model *m, const Lane *s, int c)
{
    const int32_t *member = f->member[c];
    for (int j = 0; j < f->count[c]; j++) {
        int i = member[j];
        float noise = m->noise; /* the sum of the others: total - own would cancel */
        for (int k = 0; k < f->count[c]; k++)
            if (k != j)
                noise += f->received[member[k]];
        f->rate[i] = m->bandwidth * 1.44269504f * log1p_fast(f->received[i] / noise);
        f->event[i] = f->settled[c] + s->bits_left[i] / f->rate[i];
    }
}

static inline void join_channel(Frame *f, const Model *m, Lane *s, int i, float now)
{
    int c = s->channel[i];
    settle(f, s, c, now);
    s->mode[i] = TRANSMITTING;
    f->member[c][f->count[c]++] = i;
    set_rates(f, m, s, c);
}

static inline void leave_channel(Frame *f, const Model *m, Lane *s, int i, float now)
{
    int c = s->channel[i], j = 0;
    settle(f, s, c, now);
    while (f->member[c][j] != i)
        j++;
    f->member[c][j] = f->member[c][--f->count[c]];
    set_rates(f, m, s, c);
}

static inline void count_energy(Frame *f, float power, int i, float now)
{
    f->energy += power * (now - f->since[i]);
    f->since[i] = now;
}

/* The UE whose event comes first. Floats >= 0 are ordered as their bits are; with the index below them, the
 * minimum needs no branch. */
static inline int first_event(const float *event)
{
    uint64_t first = UINT64_MAX;
    for (int i = 0; i < UES; i++) {
        uint32_t bits;
        memcpy(&bits, &event[i], sizeof bits);
        uint64_t key = (uint64_t)bits << 32 | (uint32_t)i;
        first = key < first ? key : first;
    }
    return (int)(uint32_t)first;
}

static inline void run_frame(const Model *m, Lane *s, Action *a, Output *out)
{
    int finished = 0, busy = 0, events = 1;
    Frame f;

    f.energy = 0.0f;
    for (int c = 0; c < CHANNELS; c++) {
        f.count[c] = 0;
        f.settled[c] = 0.0f;
    }
    for (int i = 0; i < UES; i++) {
        a->power[i] = fminf(fmaxf(a->power[i], MIN_POWER), m->max_power);
        f.received[i] = a->power[i] * s->gain[i];
        f.since[i] = 0.0f;
        f.event[i] = s->mode[i] == COMPUTING ? s->time_left[i] : INFINITY;
        if (s->mode[i] == TRANSMITTING)
            f.member[s->channel[i]][f.count[s->channel[i]]++] = i;
        busy += s->mode[i] != FREE;
    }
    for (int c = 0; c < CHANNELS; c++)
        set_rates(&f, m, s, c);

    for (;; events++) {
        int i = first_event(f.event);
        float now = f.event[i];
        if (now > m->frame_time)
            break;
        if (s->mode[i] == COMPUTING) {
            count_energy(&f, m->front_power[s->point[i]], i, now);
            s->time_left[i] = 0.0f;
            if (s->point[i] != POINTS - 1) {
                join_channel(&f, m, s, i, now);
                continue;
            }
        } else {
            count_energy(&f, a->power[i], i, now);
            leave_channel(&f, m, s, i, now);
        }
        /* A task is finished. */
        finished++;
        if (--s->tasks_left[i] > 0) {
            int point = a->point[i];
            s->point[i] = point;
            s->channel[i] = a->channel[i];
            s->bits_left[i] = m->bits[point];
            if (m->front_time[point] > 0.0f) {
                s->mode[i] = COMPUTING;
                f.event[i] = now + m->front_time[point];
            } else {
                join_channel(&f, m, s, i, now);
            }
        } else {
            s->mode[i] = FREE;
            s->bits_left[i] = 0.0f;
            f.event[i] = INFINITY;
            busy--;
        }
    }

    for (int c = 0; c < CHANNELS; c++)
        settle(&f, s, c, m->frame_time);
    for (int i = 0; i < UES; i++) {
        if (s->mode[i] == COMPUTING) {
            count_energy(&f, m->front_power[s->point[i]], i, m->frame_time);
            s->time_left[i] = f.event[i] - m->frame_time;
        } else if (s->mode[i] == TRANSMITTING) {
            count_energy(&f, a->power[i], i, m->frame_time);
        }
    }
    const float per_ue = 1.0f / UES;
    out->reward = -(m->frame_time + m->beta * f.energy * per_ue) / fmaxf(finished * per_ue, MIN_FINISHED);
    out->energy = f.energy;
    out->finished = finished;
    out->done = busy == 0;
    out->events = events;
}

static inline void observe(const Model *m, const Lane *s, float *obs)
{
    float per_time = 1.0f / m->time_norm;
    for (int i = 0; i < UES; i++) {
        obs[4 * i] = (float)s->tasks_left[i] / (float)s->total_tasks[i];
        obs[4 * i + 1] = s->time_left[i] * per_time;
        obs[4 * i + 2] = s->bits_left[i] * (1.0f / RAW_BITS);
        obs[4 * i + 3] = (s->distance[i] - 1.0f) * (1.0f / 99.0f);
    }
}

/* xorshift64*; its high bits are the good ones. */
static inline uint64_t draw(uint64_t *rng)
{
    *rng ^= *rng >> 12;
    *rng ^= *rng << 25;
    *rng ^= *rng >> 27;
    return *rng * 2685821657736338717u;
}

static uint64_t seeded(uint64_t seed) { return (seed + 1) * 0x9e3779b97f4a7c15u | 1u; }
/* In [0, 1) from the top 24 bits; in 0..n-1 from the low 16. */
static inline float uniform(uint64_t bits) { return (float)(bits >> 40) * 0x1p-24f; }
static inline int below(int n, uint64_t bits) { return (int)((bits & 0xffff) * (uint64_t)n >> 16); }

static void reset_lane(const Model *m, Lane *s, uint64_t *rng)
{
    for (int i = 0; i < UES; i++) {
        s->distance[i] = 1.0f + 99.0f * uniform(draw(rng));
        s->gain[i] = powf(s->distance[i], -m->path_loss);
        float u = uniform(draw(rng));
        int low = 0, high = MAX_TASKS - 1; /* find the first number of tasks whose cdf exceeds u */
        while (low < high) {
            int middle = (low + high) / 2;
            if (m->tasks_cdf[middle] > u)
                high = middle;
            else
                low = middle + 1;
        }
        s->tasks_left[i] = s->total_tasks[i] = low > 1 ? low : 1;
        uint64_t bits = draw(rng);
        s->point[i] = below(POINTS, bits >> 48);
        s->channel[i] = below(CHANNELS, bits >> 32);
        s->time_left[i] = m->front_time[s->point[i]];
        s->bits_left[i] = m->bits[s->point[i]];
        s->mode[i] = s->time_left[i] > 0.0f ? COMPUTING : TRANSMITTING;
    }
}

void reset(const Model *m, int lanes, Lane *lane, uint64_t seed)
{
    uint64_t rng = seeded(seed);
    for (int l = 0; l < lanes; l++)
        reset_lane(m, &lane[l], &rng);
}

/* Frames of every lane under a random policy. A lane that is done starts its next episode at once, and the
 * observation is then the first of that. `out` holds each lane's last frame. Returns the number of events. */
int64_t run_frames(const Model *m, int lanes, int frames, Lane *lane, Output *out, uint64_t seed)
{
    uint64_t rng = seeded(seed);
    int64_t events = 0;
    Action a;
    for (int l = 0; l < lanes; l++) {
        for (int frame = 0; frame < frames; frame++) {
            for (int i = 0; i < UES; i++) {
                uint64_t bits = draw(&rng);
                a.power[i] = m->max_power * uniform(bits);
                a.point[i] = below(POINTS, bits >> 24);
                a.channel[i] = below(CHANNELS, bits >> 8);
            }
            run_frame(m, &lane[l], &a, &out[l]);
            events += out[l].events;
            if (out[l].done)
                reset_lane(m, &lane[l], &rng);
            observe(m, &lane[l], out[l].obs);
        }
    }
    return events;
}

/* One frame of every lane with given actions, without reset. Sets the gains; clips the powers in place. */
void run_frame_actions(const Model *m, int lanes, Lane *lane, Action *action, Output *out)
{
    for (int l = 0; l < lanes; l++) {
        for (int i = 0; i < UES; i++)
            lane[l].gain[i] = powf(lane[l].distance[i], -m->path_loss);
        run_frame(m, &lane[l], &action[l], &out[l]);
        observe(m, &lane[l], out[l].obs);
    }
}

/* libfaketime translates the deadlines of pthread_cond_timedwait, and does not know cnd_timedwait, by which librdkafka
   waits: with a clock that is an hour behind, each of its waits would be over at once, and with one ahead none ever. */
#include <errno.h>
#include <pthread.h>
#include <threads.h>

int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict until)
{
    int error = pthread_cond_timedwait((pthread_cond_t *)condition, (pthread_mutex_t *)mutex, until);
    return error == 0 ? thrd_success : error == ETIMEDOUT ? thrd_timedout : thrd_error;
}

// What an application does with redigo. Argument: port.
package main

import (
	"fmt"
	"os"
	"reflect"

	"github.com/gomodule/redigo/redis"
)

func must(value interface{}, err error) interface{} {
	if err != nil {
		panic(err)
	}
	return value
}

func equal(value, wanted interface{}) {
	if !reflect.DeepEqual(value, wanted) {
		panic(fmt.Sprintf("%v instead of %v", value, wanted))
	}
}

func main() {
	pool := &redis.Pool{
		MaxIdle: 4,
		Dial:    func() (redis.Conn, error) { return redis.Dial("tcp", "127.0.0.1:"+os.Args[1]) },
	}
	client := pool.Get()
	defer client.Close()
	must(client.Do("FLUSHALL"))
	equal(must(client.Do("SET", "key", "value", "EX", 100)), "OK")
	equal(must(redis.String(client.Do("GET", "key"))), "value")
	_, missing := redis.String(client.Do("GET", "nothing"))
	equal(missing, redis.ErrNil)

	type person struct {
		Name string `redis:"name"`
		Born int    `redis:"born"`
	}
	ada := person{"Ada", 1815}
	must(client.Do("HSET", redis.Args{}.Add("hash").AddFlat(&ada)...))
	var found person
	if err := redis.ScanStruct(must(client.Do("HGETALL", "hash")).([]interface{}), &found); err != nil {
		panic(err)
	}
	equal(found, ada)
	must(client.Do("RPUSH", "list", "a", "b"))
	equal(must(redis.Strings(client.Do("LRANGE", "list", 0, -1))), []string{"a", "b"})
	must(client.Do("ZADD", "zset", 1.5, "one", 2, "two"))
	equal(must(redis.Float64(client.Do("ZSCORE", "zset", "one"))), 1.5)
	must(client.Do("XADD", "stream", "1-1", "field", "value"))
	equal(must(redis.Int(client.Do("XLEN", "stream"))), 1)
	_, wrong := client.Do("INCR", "hash")
	equal(wrong.Error(), "WRONGTYPE Operation against a key holding the wrong kind of value")

	// A pipeline, and a block.
	for number := 0; number < 100; number++ {
		must(nil, client.Send("SADD", "set", number))
	}
	must(client.Do(""))
	equal(must(redis.Int(client.Do("SCARD", "set"))), 100)
	client.Send("MULTI")
	client.Send("INCR", "count")
	client.Send("LPUSH", "list", "c")
	equal(must(client.Do("EXEC")), []interface{}{int64(1), int64(3)})
	other := pool.Get()
	defer other.Close()
	must(client.Do("WATCH", "count"))
	must(other.Do("INCR", "count"))
	client.Send("MULTI")
	client.Send("SET", "count", 9)
	equal(must(client.Do("EXEC")), nil)

	// Messages, and an element that is waited for.
	listener := redis.PubSubConn{Conn: pool.Get()}
	defer listener.Close()
	must(nil, listener.Subscribe("news"))
	equal(listener.Receive().(redis.Subscription).Count, 1)
	must(client.Do("PUBLISH", "news", "hello"))
	equal(string(listener.Receive().(redis.Message).Data), "hello")
	popped := make(chan []string)
	go func() {
		waiting := pool.Get()
		defer waiting.Close()
		popped <- must(redis.Strings(waiting.Do("BLPOP", "queue", 20))).([]string)
	}()
	must(client.Do("RPUSH", "queue", "job"))
	equal(<-popped, []string{"queue", "job"})

	members, cursor := map[string]bool{}, "0"
	for {
		page := must(redis.Values(client.Do("SSCAN", "set", cursor))).([]interface{})
		cursor = must(redis.String(page[0], nil)).(string)
		for _, member := range must(redis.Strings(page[1], nil)).([]string) {
			members[member] = true
		}
		if cursor == "0" {
			break
		}
	}
	equal(len(members), 100)
	fmt.Println("all well")
}

{# The results of every submission that a relation of submitted jobs names. A submission that has not ended is an
   error that says how far it is; with the var wait_for_answers it is waited for. #}
{% macro answers_of(submitted) %}
  {% for id in submission_ids(submitted) %}
    {% if var('wait_for_answers') %}
      {% do run_query("FROM mistral_batch_wait('" ~ id ~ "')") %}
    {% endif %}
    FROM mistral_batch_results('{{ id }}')
    {% if not loop.last %} UNION ALL BY NAME {% endif %}
  {% else %}
    FROM mistral_batch_results() WHERE false
  {% endfor %}
{% endmacro %}


{# dbt run-operation wait_for_answers: returns once every batch of this project's tables has ended. #}
{% macro wait_for_answers() %}
  {% for model in ['submitted', 'recent_submitted'] %}
    {% for id in submission_ids(ref(model)) %}
      {% set jobs = run_query("SELECT job_id, status, succeeded_requests, total_requests FROM mistral_batch_wait('" ~ id ~ "')") %}
      {% for job in jobs.rows %}
        {% do log(model ~ ': job ' ~ job['job_id'] ~ ' ended ' ~ job['status'] ~ ', '
                  ~ job['succeeded_requests'] ~ ' of ' ~ job['total_requests'] ~ ' answered', info=true) %}
      {% endfor %}
    {% endfor %}
  {% endfor %}
{% endmacro %}


{% macro submission_ids(submitted) %}
  {% if not execute %}{% do return([]) %}{% endif %}
  {% set found = run_query("SELECT DISTINCT submission_id FROM " ~ submitted ~ " ORDER BY submission_id") %}
  {% do return(found.columns[0].values()) %}
{% endmacro %}


{% macro has_rows(select) %}
  {% if not execute %}{% do return(true) %}{% endif %}
  {% do return(run_query("SELECT 1 FROM (" ~ select ~ ") LIMIT 1").rows | length > 0) %}
{% endmacro %}
